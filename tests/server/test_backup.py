import hashlib
import json
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium, tree_of

from fedcad.server import backup
from fedcad.server.backup import back_up
from fedcad.server.consortium import Consortium
from fedcad.shared.errors import ConfigError, IdentityError


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    made = found_consortium(tmp_path)
    enrol_hospital(made, build_hospital(tmp_path), tmp_path)
    study = made.studies / "lungs" / "v0001" / "checkpoints"
    study.mkdir(parents=True)
    (study / "round-0001.json").write_text("{}")
    (made.run / "supervisor.lock").write_text("{}")
    (made.folder / ".x.unfinished").write_text("half")
    return made


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        streams = {member.name: archive.extractfile(member) for member in archive}
        return {name: stream.read() for name, stream in streams.items() if stream is not None}


def test_everything_is_in_it_and_only_its_owner_reads_it(consortium: Consortium, tmp_path: Path) -> None:
    saved = back_up(consortium, tmp_path / "b.tar", now=NOW)
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    members = members_of(tmp_path / "b.tar")
    manifest = json.loads(members.pop("manifest.json"))
    expected = {
        name: content
        for name, content in tree_of(consortium.folder).items()
        if not name.startswith("run/") and "unfinished" not in name
    }
    assert members == expected
    assert {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()} == {
        name: entry["sha256"] for name, entry in manifest["files"].items()
    }
    assert (saved.files, saved.consortium, saved.made) == (
        len(expected),
        "lungs",
        "2026-11-25T12:00:00+00:00",
    )
    assert saved.bytes == sum(map(len, expected.values()))


def test_the_database_is_copied_as_a_whole_while_others_write(consortium: Consortium, tmp_path: Path) -> None:
    with closing(sqlite3.connect(consortium.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(100)])
        connection.commit()
        connection.execute("INSERT INTO t VALUES (-1)")  # not committed: must not be in the copy
        back_up(consortium, tmp_path / "b.tar")
    members = members_of(tmp_path / "b.tar")
    assert not [name for name in members if name.endswith(("-wal", "-shm"))]
    (tmp_path / "copy.db").write_bytes(members["state/superlink.db"])
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*), min(x), max(x) FROM t").fetchone() == (100, 0, 99)
    assert [path.name for path in consortium.database.parent.iterdir() if "backup" in path.name] == []


def test_a_checkpoint_that_takes_anothers_place_is_found(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round closes between listing and reading: the new checkpoint must be in the backup."""
    folder = consortium.studies / "lungs" / "v0001" / "checkpoints"
    add_file = backup._add_file

    def close_a_round_first(archive: tarfile.TarFile, path: Path, name: str) -> object:
        if path.name == "round-0001.json" and path.exists():
            (folder / "round-0002.json").write_text("{}")
            path.unlink()
        return add_file(archive, path, name)

    monkeypatch.setattr(backup, "_add_file", close_a_round_first)
    back_up(consortium, tmp_path / "b.tar")
    names = [Path(name).name for name in members_of(tmp_path / "b.tar")]
    assert "round-0002.json" in names
    assert "round-0001.json" not in names


def test_nothing_is_overwritten_and_nothing_written_into_the_folder(
    consortium: Consortium, tmp_path: Path
) -> None:
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(IdentityError, match="never overwritten"):
        back_up(consortium, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "mine"
    with pytest.raises(ConfigError, match="lies inside"):
        back_up(consortium, consortium.folder / "b.tar")
    with pytest.raises(ConfigError, match="no such folder"):
        back_up(consortium, tmp_path / "absent" / "b.tar")


def test_links_are_not_followed(consortium: Consortium, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("not ours")
    (consortium.studies / "link").symlink_to(tmp_path / "outside")
    back_up(consortium, tmp_path / "b.tar")
    assert "studies/link" not in members_of(tmp_path / "b.tar")
