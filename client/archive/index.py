"""The SQLite index of a DICOM folder: built once, brought up to date in seconds, safe against kill -9.

Why: opening an archive of a hundred thousand files takes an hour; a site must not pay for it at every start.
A file whose size and time of modification are unchanged is not opened again. The source is only read.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcad.client.archive.facts import FACT_NAMES, ImageFacts, read_facts
from fedcad.client.archive.header import DEFAULT_LIMITS, PixelLimits
from fedcad.client.archive.reasons import TEMPORARY, Reason, Reject, UnusableFile, count_reasons
from fedcad.client.archive.walk import walk_archive
from fedcad.shared.errors import ArchiveError

INDEX_VERSION = 1
"""Raised when the meaning of the index changes; an older index is then built anew."""

_CHUNK = 256
_BUSY_TIMEOUT_S = 120.0
_SENTENCES = {
    Reason.SYMBOLIC_LINK: "the path is a symbolic link; links are not followed",
    Reason.UNREADABLE: "the file or folder cannot be read; grant read access",
}


@dataclass(frozen=True)
class IndexedImage:
    """One usable image of the archive.

    Attributes:
        path: Path relative to the archive.
        size: Bytes.
        mtime_ns: Time of last modification, nanoseconds.
        facts: What its header says.
    """

    path: str
    size: int
    mtime_ns: int
    facts: ImageFacts


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What one update did.

    Attributes:
        files: Files found.
        read: Files opened: new, changed, or unreadable before.
        unchanged: Files that were not opened again.
        removed: Files that were in the index and are gone.
        usable: Usable images, each SOP instance once.
        rejects: Number of files left out, by reason, most frequent first.
    """

    files: int
    read: int
    unchanged: int
    removed: int
    usable: int
    rejects: tuple[tuple[Reason, int], ...]


def update_index(
    archive: Path,
    database: Path,
    *,
    limits: PixelLimits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Bring the index of a folder up to date.

    Args:
        archive: Folder of DICOM files; only read, links in it are not followed.
        database: SQLite file, made if absent; must not lie inside the archive.
        limits: What one file may ask for.
        progress: Called with (files read, files to read).

    Guarantees:
        Killed at any moment, the next call goes on where this one was. Bad files never stop it.

    Raises:
        ArchiveError: The archive is no readable folder, or the database is inside it or not ours.
    """
    if database.resolve().is_relative_to(archive.resolve()):
        raise ArchiveError(f"the index {database} lies inside the archive, which is only read; move it out")
    with _connect(database) as connection:
        files = _list_files(connection, archive)
        removed = _forget_vanished(connection)
        pending = _pending(connection)
        for start in range(0, len(pending), _CHUNK):
            _read_chunk(connection, archive, pending[start : start + _CHUNK], limits)
            if progress is not None:
                progress(min(start + _CHUNK, len(pending)), len(pending))
        usable, rejects = len(_images(connection)), _rejects(connection)
    return IndexReport(
        files=files,
        read=len(pending),
        unchanged=files - len(pending),
        removed=removed,
        usable=usable,
        rejects=count_reasons(rejects),
    )


def indexed_images(database: Path) -> tuple[IndexedImage, ...]:
    """Return every usable image, each SOP instance once (the first path), sorted by SOP Instance UID.

    Raises:
        ArchiveError: There is no such index.
    """
    with _connect(_existing(database)) as connection:
        return _images(connection)


def index_rejects(database: Path) -> tuple[Reject, ...]:
    """Return every file that is left out, with its reason, sorted by path.

    Raises:
        ArchiveError: There is no such index.
    """
    with _connect(_existing(database)) as connection:
        return _rejects(connection)


def _existing(database: Path) -> Path:
    """Return the path of an index that exists."""
    if not database.is_file():
        raise ArchiveError(f"there is no index at {database}; make it with update_index")
    return database


@contextmanager
def _connect(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database, private to its owner, with the tables in place."""
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(database, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            _make_tables(connection)
            yield connection
    except (sqlite3.DatabaseError, OSError) as error:
        raise ArchiveError(
            f"the index {database} cannot be used ({error}); remove it to have it built anew"
        ) from error


def _make_tables(connection: sqlite3.Connection) -> None:
    """Create the tables; drop those of an older version.

    The version that counts is the one read under the write lock: of several processes that open a new index
    at once, all but the first must leave the first one's tables, which it may already have filled.
    """
    if _is_current(connection):
        return
    columns = ", ".join(f"{name} NOT NULL DEFAULT ''" for name in FACT_NAMES)
    connection.execute("BEGIN IMMEDIATE")
    if _is_current(connection):
        connection.execute("ROLLBACK")
        return
    connection.execute("DROP TABLE IF EXISTS files")
    # Paths are bytes: a file system may hold names that are no valid text.
    connection.execute(
        "CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "
        f"reason TEXT, sentence TEXT NOT NULL DEFAULT '', {columns}) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX files_by_instance ON files (sop_instance_uid, path)")
    connection.execute(f"PRAGMA user_version = {INDEX_VERSION}")
    connection.execute("COMMIT")


def _is_current(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there, in this version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version == INDEX_VERSION)


def _list_files(connection: sqlite3.Connection, archive: Path) -> int:
    """Put what the archive holds now into a temporary table; return the number of entries."""
    connection.execute(
        "CREATE TEMP TABLE found (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, reason TEXT) "
        "WITHOUT ROWID"
    )
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO temp.found VALUES (?, ?, ?, ?)",
        (
            (os.fsencode(found.path), found.size, found.mtime_ns, found.reason)
            for found in walk_archive(archive)
        ),
    )
    connection.execute("COMMIT")
    (count,) = connection.execute("SELECT count(*) FROM temp.found").fetchone()
    return int(count)


def _forget_vanished(connection: sqlite3.Connection) -> int:
    """Remove rows of files that are gone; return how many."""
    return connection.execute("DELETE FROM files WHERE path NOT IN (SELECT path FROM temp.found)").rowcount


def _pending(connection: sqlite3.Connection) -> list[tuple[bytes, int, int, str | None]]:
    """Return entries to read: new, changed, or left out for a reason that may have vanished."""
    marks = ", ".join("?" for _ in TEMPORARY)
    return connection.execute(
        "SELECT found.path, found.size, found.mtime_ns, found.reason FROM temp.found AS found "
        "LEFT JOIN files ON files.path = found.path "
        "WHERE files.path IS NULL OR files.size <> found.size OR files.mtime_ns <> found.mtime_ns "
        f"OR files.reason IN ({marks}) ORDER BY found.path",
        sorted(TEMPORARY),
    ).fetchall()


def _read_chunk(
    connection: sqlite3.Connection,
    archive: Path,
    chunk: list[tuple[bytes, int, int, str | None]],
    limits: PixelLimits,
) -> None:
    """Read some headers and commit them together."""
    rows = [
        (path, size, mtime_ns, *_examine(archive / os.fsdecode(path), reason, limits))
        for path, size, mtime_ns, reason in chunk
    ]
    marks = ", ".join("?" for _ in range(5 + len(FACT_NAMES)))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", rows)
    connection.execute("COMMIT")


def _examine(path: Path, reason: str | None, limits: PixelLimits) -> tuple[str | int | None, ...]:
    """Return reason, sentence and facts of one entry."""
    nothing = ("",) * len(FACT_NAMES)
    if reason is not None:
        return (reason, _SENTENCES[Reason(reason)], *nothing)
    try:
        facts = read_facts(path, limits=limits)
    except UnusableFile as error:
        return (error.reason, error.sentence, *nothing)
    return (None, "", *(getattr(facts, name) for name in FACT_NAMES))


def _images(connection: sqlite3.Connection) -> tuple[IndexedImage, ...]:
    """Return the first file of every SOP instance."""
    rows = connection.execute(
        f"SELECT path, size, mtime_ns, {', '.join(FACT_NAMES)} FROM files AS file WHERE reason IS NULL "
        "AND path = (SELECT min(path) FROM files WHERE sop_instance_uid = file.sop_instance_uid "
        "AND reason IS NULL) ORDER BY sop_instance_uid"
    )
    return tuple(
        IndexedImage(
            os.fsdecode(path), size, mtime_ns, ImageFacts(**dict(zip(FACT_NAMES, facts, strict=True)))
        )
        for path, size, mtime_ns, *facts in rows
    )


def _rejects(connection: sqlite3.Connection) -> tuple[Reject, ...]:
    """Return files with a reason, and all but the first file of every SOP instance."""
    rows = connection.execute("SELECT path, reason, sentence FROM files WHERE reason IS NOT NULL").fetchall()
    duplicates = connection.execute(
        "SELECT path FROM files AS file WHERE reason IS NULL AND path <> (SELECT min(path) FROM files "
        "WHERE sop_instance_uid = file.sop_instance_uid AND reason IS NULL)"
    )
    sentence = "another file holds the same SOP instance; the first path is used"
    rows += [(path, Reason.DUPLICATE_INSTANCE, sentence) for (path,) in duplicates]
    return tuple(
        Reject(reason=Reason(reason), subject=os.fsdecode(path), sentence=text)
        for path, reason, text in sorted(rows)
    )
