"""Walk an archive without ever leaving it: symbolic links are reported, never followed.

Why: a link inside a hospital's export may point anywhere; following it would read, and later train on, files
that nobody released.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.shared.errors import ArchiveError


@dataclass(frozen=True)
class Found:
    """A directory entry below the archive.

    Attributes:
        path: Path relative to the archive, ``/`` between folders, undecodable bytes as surrogates.
        size: Bytes; -1 where the entry cannot be used.
        mtime_ns: Time of last modification, nanoseconds; 0 where the entry cannot be used.
        reason: Why the entry cannot be used, else None.
    """

    path: str
    size: int
    mtime_ns: int
    reason: Reason | None = None


def walk_archive(archive: Path) -> Iterator[Found]:
    """Yield every regular file below a folder, and every link or unreadable folder with its reason.

    Guarantees:
        Nothing outside the folder is looked at; nothing is opened. Sockets, devices and pipes are ignored.

    Raises:
        ArchiveError: The archive is not a folder that can be listed.
    """
    root = archive.resolve()
    if not root.is_dir():
        raise ArchiveError(f"{archive} is not a folder; give the folder that holds the DICOM files")
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise ArchiveError(
                    f"{archive} cannot be listed ({error.strerror}); grant read access"
                ) from error
            yield Found(folder, -1, 0, Reason.UNREADABLE)
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield from _examine(entry, path)


def _examine(entry: os.DirEntry[str], path: str) -> Iterator[Found]:
    """Yield one file or link; nothing for other kinds and for files that vanished meanwhile."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError:
        yield Found(path, -1, 0, Reason.UNREADABLE)
        return
    if stat.S_ISLNK(status.st_mode):
        yield Found(path, -1, 0, Reason.SYMBOLIC_LINK)
    elif stat.S_ISREG(status.st_mode):
        yield Found(path, status.st_size, status.st_mtime_ns)


def open_read_only(path: Path) -> BinaryIO:
    """Open a regular file for reading; a link put in its place since the walk is refused.

    Raises:
        UnusableFile: The file cannot be opened or is no regular file.
    """
    try:
        # O_NONBLOCK: a pipe put in the file's place must not hang the site.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, f"the file cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnusableFile(Reason.UNREADABLE, "the path is not a regular file")
    return os.fdopen(descriptor, "rb")
