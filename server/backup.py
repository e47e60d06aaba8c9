"""Backup of a consortium: one file with everything, keys and database included.

The file is an uncompressed tar archive, readable with any tool. Its last member, ``manifest.json``, holds the
hash of every file, so that damage is noticed before anything is restored (:mod:`fedcad.server.restoration`).
"""

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field

from fedcad.server.consortium import Consortium
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.enrolment import HexKey, Time
from fedcad.shared.errors import CheckpointError, ConfigError
from fedcad.shared.secret_files import PRIVATE_FILE, write_secretly
from fedcad.shared.version import __version__

MANIFEST = "manifest.json"
"""Name of the last member."""
DATABASE = "state/superlink.db"
"""The SuperLink's database, below the folder."""
_LEFT_OUT = ("run/", f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
"""What exists only while the coordinator runs; the database is copied as a whole."""
_UNFINISHED = ".unfinished"
_PASSES = 10


class FileEntry(Frozen):
    """One file of a backup."""

    sha256: HexKey
    """Hash of its content."""
    size: Annotated[int, Field(ge=0)]
    """Size in bytes."""
    private: bool
    """Whether only its owner may read it."""


class Manifest(Frozen):
    """What a backup holds."""

    format: Literal[1] = 1
    """Version of this kind of file."""
    consortium: Annotated[str, Field(max_length=64)]
    """Name of the consortium."""
    fedcad: Annotated[str, Field(max_length=40)] = __version__
    """Version of FedCAD that made it."""
    made: Time
    """When it was made, ISO 8601."""
    files: dict[str, FileEntry]
    """Every file by its path below the consortium's folder."""


@dataclass(frozen=True)
class Saved:
    """What was written or restored.

    Attributes:
        files: Number of files.
        bytes: Their size together.
        made: When the backup was made, ISO 8601.
        consortium: Name of the consortium.
    """

    files: int
    bytes: int
    made: str
    consortium: str

    @classmethod
    def of(cls, manifest: Manifest) -> "Saved":
        """Summarise a manifest."""
        size = sum(entry.size for entry in manifest.files.values())
        return cls(len(manifest.files), size, manifest.made, manifest.consortium)


def back_up(consortium: Consortium, target: Path, *, now: datetime | None = None) -> Saved:
    """Write everything into one new file with mode 0600; the coordinator may be running.

    Guarantees:
        The file is whole or absent. The database is a consistent copy; every other file is one that was there
        as a whole. A study in it can go on from a closed round.

    Raises:
        IdentityError: The target exists.
        ConfigError: It lies inside the consortium's folder.
        CheckpointError: The folder changed all the time.
    """
    folder = consortium.folder
    if target.absolute().resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{target} lies inside {folder}; give a file elsewhere, at best on another disk")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target.absolute().parent}: no such folder; make it first")
    made = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    entries: dict[str, FileEntry] = {}

    def write(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add_database(archive, consortium.database, entries)
            _add_files(archive, folder, entries)
            manifest = Manifest(consortium=consortium.config.name, made=made, files=entries)
            content = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True).encode()
            _add(archive, MANIFEST, io.BytesIO(content), len(content), private=True)

    write_secretly(target, write)
    return Saved.of(Manifest(consortium=consortium.config.name, made=made, files=entries))


def _add_database(archive: tarfile.TarFile, database: Path, entries: dict[str, FileEntry]) -> None:
    """Add a consistent copy of the database, made by SQLite while others may be writing."""
    if not database.is_file():
        return
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=".backup-", suffix=_UNFINISHED) as place:
        copy = Path(place) / "copy.db"
        with (
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as origin,
            closing(sqlite3.connect(copy)) as target,
        ):
            origin.backup(target)
        with copy.open("rb") as stream:
            size = copy.stat().st_size
            entries[DATABASE] = _add(archive, DATABASE, stream, size, private=True)


def _add_files(archive: tarfile.TarFile, folder: Path, entries: dict[str, FileEntry]) -> None:
    """Add every file; look again while files vanish, since a new checkpoint has then taken their place."""
    for _ in range(_PASSES):
        vanished = False
        for name in _names(folder):
            if name not in entries:
                entry = _add_file(archive, folder / name, name)
                if entry is None:
                    vanished = True
                else:
                    entries[name] = entry
        if not vanished:
            return
    raise CheckpointError(f"{folder} changed all the time; try again, or stop the coordinator first")


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith(_LEFT_OUT) or _UNFINISHED in name or path.is_symlink() or not path.is_file():
            continue
        yield name


def _add_file(archive: tarfile.TarFile, path: Path, name: str) -> FileEntry | None:
    """Add one file as long as it is now; None where it vanished."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return None
    with stream:
        status = os.fstat(stream.fileno())
        return _add(archive, name, stream, status.st_size, private=not status.st_mode & 0o077)


def _add(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int, *, private: bool) -> FileEntry:
    """Add a member and return its entry."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, PRIVATE_FILE if private else 0o644
    hashing = _Hashing(stream)
    archive.addfile(member, hashing)
    return FileEntry(sha256=hashing.digest.hexdigest(), size=size, private=private)


class _Hashing:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        return content
