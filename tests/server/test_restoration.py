import io
import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium, tree_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcad.server.backup import back_up
from fedcad.server.consortium import Consortium
from fedcad.server.restoration import restore
from fedcad.shared.errors import CheckpointError, ConfigError, FedCADError


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Consortium, Path]:
    consortium = found_consortium(tmp_path)
    enrol_hospital(consortium, build_hospital(tmp_path), tmp_path)
    (consortium.studies / "lungs").mkdir()
    (consortium.studies / "lungs" / "model").write_bytes(bytes(range(256)) * 40)
    back_up(consortium, tmp_path / "b.tar", now=NOW)
    return consortium, tmp_path / "b.tar"


def test_what_was_saved_comes_back(saved: tuple[Consortium, Path], tmp_path: Path) -> None:
    consortium, path = saved
    summary = restore(path, tmp_path / "new")
    assert tree_of(tmp_path / "new") == tree_of(consortium.folder)
    assert summary.files == len(tree_of(consortium.folder))
    again = Consortium.load(tmp_path / "new")
    assert again.fingerprint == consortium.fingerprint
    assert again.sites(NOW) == consortium.sites(NOW)
    assert {stat.S_IMODE(key.stat().st_mode) for key in again.keys.iterdir()} == {0o600}
    assert stat.S_IMODE(again.keys.stat().st_mode) == 0o700
    assert again.run.is_dir()
    again.signing_key()


def test_nothing_is_overwritten(saved: tuple[Consortium, Path], tmp_path: Path) -> None:
    consortium, path = saved
    before = tree_of(consortium.folder)
    with pytest.raises(ConfigError, match="not empty"):
        restore(path, consortium.folder)
    assert tree_of(consortium.folder) == before


def refused(path: Path, folder: Path, match: str | None = None) -> None:
    """Check that a backup is refused and leaves nothing behind."""
    before = sorted(folder.iterdir())
    with pytest.raises(FedCADError, match=match):
        restore(path, folder / "new")
    assert sorted(folder.iterdir()) == before


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_text("not a tar" * 1000)
    (tmp_path / "folder.tar").mkdir()
    for name in ("empty.tar", "text.tar", "folder.tar", "absent.tar"):
        refused(tmp_path / name, tmp_path, name.replace(".", r"\."))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_changed_bit_of_a_file_is_refused(
    saved: tuple[Consortium, Path], tmp_path: Path, place: int, bit: int
) -> None:
    _, path = saved
    content = bytearray(path.read_bytes())
    start = content.index(bytes(range(256)))
    content[start + place % 10_240] ^= 1 << bit
    (tmp_path / "changed.tar").write_bytes(content)
    refused(tmp_path / "changed.tar", tmp_path, "studies/lungs/model.* is not as the manifest says")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(part=st.floats(0, 0.999))
def test_a_backup_that_was_cut_off_is_refused(
    saved: tuple[Consortium, Path], tmp_path: Path, part: float
) -> None:
    _, path = saved
    content = path.read_bytes()
    end = content.rindex(b'"private"')
    (tmp_path / "cut.tar").write_bytes(content[: int(end * part)])
    refused(tmp_path / "cut.tar", tmp_path)


def rebuilt(
    path: Path, target: Path, change: Callable[[tarfile.TarInfo], None], extra: tarfile.TarInfo | None
) -> None:
    """Write a backup anew with a changed first member, or one more."""
    with tarfile.open(path) as source, tarfile.open(target, "w") as archive:
        for number, member in enumerate(source):
            stream = source.extractfile(member)
            if number == 0:
                change(member)
                if extra is not None:
                    archive.addfile(extra, io.BytesIO(b"x" * extra.size))
            archive.addfile(member, stream)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "extra",
    [
        member("/etc/x", size=1),
        member("../x", size=1),
        member("a/../../x", size=1),
        member("./x", size=1),
        member("a//x", size=1),
        member("", size=1),
        member("n" * 600, size=1),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "consortium.yaml"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
        member("folder", tarfile.DIRTYPE),
        member("consortium.yaml", size=1),
        member("unlisted", size=1),
    ],
    ids=lambda one: f"{one.type!r}-{one.name[:12]}",
)
def test_hostile_members_are_refused(
    saved: tuple[Consortium, Path], tmp_path: Path, extra: tarfile.TarInfo
) -> None:
    rebuilt(saved[1], tmp_path / "hostile.tar", lambda _: None, extra)
    refused(tmp_path / "hostile.tar", tmp_path)
    assert not Path("/etc/x").exists()


def test_the_last_member_is_the_manifest(saved: tuple[Consortium, Path], tmp_path: Path) -> None:
    content = tmp_path / "after.tar"
    with tarfile.open(saved[1]) as source, tarfile.open(content, "w") as archive:
        for one in source:
            archive.addfile(one, source.extractfile(one))
        archive.addfile(member("late", size=1), io.BytesIO(b"x"))
    refused(content, tmp_path, "late")


def with_manifest(path: Path, target: Path, change: Callable[[dict[str, object]], bytes]) -> None:
    with tarfile.open(path) as source, tarfile.open(target, "w") as archive:
        for one in source:
            stream = source.extractfile(one)
            if one.name == "manifest.json" and stream is not None:
                content = change(json.loads(stream.read()))
                one.size, stream = len(content), io.BytesIO(content)
            archive.addfile(one, stream)


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 100_000, b"\xff"])
def test_a_damaged_manifest_is_refused(
    saved: tuple[Consortium, Path], tmp_path: Path, content: bytes
) -> None:
    with_manifest(saved[1], tmp_path / "m.tar", lambda _: content)
    refused(tmp_path / "m.tar", tmp_path, "manifest is damaged")


def test_keys_become_private_whatever_the_manifest_says(
    saved: tuple[Consortium, Path], tmp_path: Path
) -> None:
    def loosen(plain: dict[str, object]) -> bytes:
        files = plain["files"]
        assert isinstance(files, dict)
        for entry in files.values():
            entry["private"] = False
        return json.dumps(plain).encode()

    with_manifest(saved[1], tmp_path / "loose.tar", loosen)
    restore(tmp_path / "loose.tar", tmp_path / "new")
    assert {stat.S_IMODE(key.stat().st_mode) for key in (tmp_path / "new" / "keys").iterdir()} == {0o600}


def test_keys_that_do_not_belong_together_are_refused(saved: tuple[Consortium, Path], tmp_path: Path) -> None:
    consortium, _ = saved
    other = found_consortium(tmp_path, "other")
    (other.keys / "signing.key").replace(consortium.keys / "signing.key")
    back_up(consortium, tmp_path / "mixed.tar", now=NOW)
    refused(tmp_path / "mixed.tar", tmp_path, r"signing key .* does not fit")


def test_a_damaged_database_is_refused(saved: tuple[Consortium, Path], tmp_path: Path) -> None:
    consortium, _ = saved
    consortium.database.write_bytes(b"")
    back_up(consortium, tmp_path / "none.tar", now=NOW)
    with tarfile.open(tmp_path / "none.tar") as source:
        names = source.getnames()
    assert "state/superlink.db" in names
    with_file(
        tmp_path / "none.tar", tmp_path / "bad.tar", "state/superlink.db", b"SQLite format 3\0" + b"x" * 4000
    )
    with pytest.raises(CheckpointError, match="database"):
        restore(tmp_path / "bad.tar", tmp_path / "new")


def with_file(path: Path, target: Path, name: str, content: bytes) -> None:
    """Replace a file of a backup, in its manifest too."""
    import hashlib

    def say(plain: dict[str, object]) -> bytes:
        files = plain["files"]
        assert isinstance(files, dict)
        files[name] |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return json.dumps(plain).encode()

    between = target.with_suffix(".between")
    with tarfile.open(path) as source, tarfile.open(between, "w") as archive:
        for one in source:
            stream = source.extractfile(one)
            if one.name == name:
                one.size, stream = len(content), io.BytesIO(content)
            archive.addfile(one, stream)
    with_manifest(between, target, say)
