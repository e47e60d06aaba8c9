"""Folders that are either whole or absent, written by any number of processes at once.

A folder is written under a temporary name that its process holds locked, and renamed when it is whole. The
kernel drops the lock when a process ends, however it ends (kill -9 too), so the next one can tell a dead
process's leavings from another's work, and removes them.
"""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedcad.shared.atomic_files import sync_folder
from fedcad.shared.canonical import canonical_json

_MANIFEST = "complete.json"
_TEMPORARY = ".writing-"
_SYNCED_AT_ONCE = 16


def finished_folder(folder: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return the facts about a finished folder, which is written first if absent or damaged.

    Guarantees:
        After any interruption of the process, and after a power cut, the folder is absent or whole: every
        file is on the disk before the folder gets its name. A folder from which files are missing or cut
        short (by hand) is written anew; files that were changed but kept their size are not noticed.

    Args:
        folder: The folder; its name should be a hash of everything that decides about its content.
        write: Fills the folder that it is given and returns facts (plain data) to keep. A fact ``retry``
            that is true has the folder written anew the next time.

    Returns:
        The facts, from this or an earlier writing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    facts = _facts_if_whole(folder)
    if facts is not None and not facts.get("retry"):
        return facts
    with _temporary_folder(folder.parent) as temporary:
        facts = write(temporary)
        manifest = {"facts": facts, "sizes": _sizes(temporary)}
        (temporary / _MANIFEST).write_bytes(canonical_json(manifest))
        _sync(temporary)
        _put_in_place(temporary, folder)
    return facts


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename; if another process was first, its folder is as good (same hash) unless damaged or to retry."""
    while True:
        try:
            temporary.rename(folder)
            sync_folder(folder.parent)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        facts = _facts_if_whole(folder)
        if facts is not None and not facts.get("retry"):
            return
        with _temporary_folder(folder.parent) as old, suppress(FileNotFoundError):
            folder.rename(old / "replaced")


def _sync(folder: Path) -> None:
    """Bring every file and folder below a folder to the disk.

    Many at once, as the file system writes its journal once for all that wait for it: one after the other
    takes seconds for a thousand files.
    """
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        # sync_folder opens its path for reading only, which is enough for a file too.
        for _ in threads.map(sync_folder, [*folder.rglob("*"), folder]):
            pass


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    path, descriptor = _locked_folder(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
        path.chmod(0o755)
        descriptor = _lock(path)
        if descriptor is not None:
            return path, descriptor
        # Another process found the folder before it was locked and is removing it.


def _lock(path: Path) -> int | None:
    """Lock a folder and return its descriptor, or None if it is locked by another or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _remove_abandoned(parent: Path) -> None:
    for path in sorted(parent.glob(f"{_TEMPORARY}*")):
        descriptor = _lock(path)
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _facts_if_whole(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        is_whole = all((folder / name).stat().st_size == size for name, size in manifest["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    facts: dict[str, Any] = manifest["facts"]
    return facts if is_whole else None


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}
