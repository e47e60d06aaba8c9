"""Files that are whole or absent, whatever interrupts the writing."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from fedcad.shared.atomic_files import remove_leftovers, sync_folder, write_atomically, write_bytes


def test_content_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    write_bytes(path, b"")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


class Interrupted(BaseException):
    pass


def half(stream: IO[bytes]) -> None:
    stream.write(b"ne")
    raise Interrupted


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_writer_that_fails_leaves_the_old_file_or_none_and_no_litter(
    tmp_path: Path, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(Interrupted):
        write_atomically(path, half)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([old] if old is not None else [])


@pytest.mark.parametrize("name", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(name, fail)
        with pytest.raises(OSError, match="No space"):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_kill_9_in_the_midst_leaves_the_old_file_and_litter_that_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    (tmp_path / ".hidden").write_text("mine")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from fedcad.shared.atomic_files import write_atomically\n"
        "def write(stream):\n"
        "    stream.write(b'ne'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically(Path({str(path)!r}), write)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".hidden", "file"]


def test_data_is_on_the_disk_before_the_name_and_the_name_before_returning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recording(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            what = args[0]
            kind = "folder" if isinstance(what, int) and stat.S_ISDIR(os.fstat(what).st_mode) else "file"
            calls.append(f"{name} {kind}")
            return real(*args, **options)

        return call

    monkeypatch.setattr(os, "fsync", recording("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", recording("replace", Path.replace))
    write_bytes(tmp_path / "file", b"new")
    assert calls == ["fsync file", "replace file", "fsync folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_permissions_are_those_that_the_owner_of_the_process_chose(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "file", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "no" / "file", b"x")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "no")
