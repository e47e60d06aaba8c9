"""Files that are either whole or absent, also after kill -9 or a power cut."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

_UNFINISHED = ".unfinished"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file through a temporary neighbour, fsync it, rename it, fsync the folder.

    The file's permissions follow the umask of the process: a hospital that keeps its files to itself keeps
    these too. What kill -9 leaves of a neighbour, :func:`remove_leftovers` removes.

    Guarantees:
        A reader, or a restart after any interruption, sees the old file or the new one, whole.
    """
    neighbour = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_UNFINISHED}")
    try:
        with neighbour.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        neighbour.replace(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what interrupted writes left in a folder to which nobody else is writing."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda stream: stream.write(content))


def sync_folder(folder: Path) -> None:
    """Make names that were added to or changed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
