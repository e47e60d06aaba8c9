import stat
from pathlib import Path

import pytest

from fedcad.server.consortium import Consortium
from fedcad.shared.cli import run
from fedcad.shared.dialogue import to_read_out

INIT = ["--name", "lungs", "--address", "fedcad.example.org:8443"]


def test_init_shows_what_was_made_the_fingerprint_and_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lungs"
    assert run(["server", "init", str(folder), *INIT]) == 0
    out = capsys.readouterr().out
    assert to_read_out(Consortium.load(folder).fingerprint) in out
    assert f"fedcad server enrol {folder} request.json" in out
    for name in ("consortium.yaml", "keys", "ca.crt", "server.crt", "signing.pub"):
        assert name in out
        assert (folder / name).exists()
    assert "PRIVATE" not in out
    assert run(["check", str(folder / "consortium.yaml")]) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--name", "Lungs", "--address", "a:1"], "'Lungs'"),
        (["--name", "lungs", "--address", "a"], "host:port"),
        (["--name", "lungs"], "--address"),
    ],
)
def test_wrong_answers_make_nothing(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["server", "init", str(tmp_path / "x"), *words]) == 2
    assert named in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_init_twice_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["server", "init", str(tmp_path / "lungs"), *INIT]) == 0
    first = Consortium.load(tmp_path / "lungs").fingerprint
    assert run(["server", "init", str(tmp_path / "lungs"), *INIT]) == 2
    assert "not empty; nothing was changed" in capsys.readouterr().err
    assert Consortium.load(tmp_path / "lungs").fingerprint == first


def test_backup_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["server", "init", str(tmp_path / "lungs"), *INIT])
    assert run(["server", "backup", str(tmp_path / "lungs"), str(tmp_path / "b.tar")]) == 0
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    assert "private keys" in capsys.readouterr().out
    assert run(["server", "restore", str(tmp_path / "b.tar"), str(tmp_path / "new")]) == 0
    assert "never run both" in capsys.readouterr().out
    assert Consortium.load(tmp_path / "new").fingerprint == Consortium.load(tmp_path / "lungs").fingerprint
    assert run(["server", "restore", str(tmp_path / "b.tar"), str(tmp_path / "new")]) == 2
    assert run(["server", "backup", str(tmp_path), str(tmp_path / "c.tar")]) == 2
    assert "fedcad server init" in capsys.readouterr().err
