"""Preprocessed images of a site, kept between rounds and restarts as one memory-mapped file.

Why: decoding is by far the dearest part of an epoch; done once, an epoch reads 2 bytes per pixel from a file
that all processes of the site share in memory. The file holds pixels of patients: it is private to its owner.

Layout: ``pixels.int16`` holds slots of size × size int16 (little endian), one after another. ``slots.sqlite``
says which case is in which slot. A slot is written and synced before its row is committed, and never written
again once it has a row: a process killed at any moment leaves only slots without a row, to be
written anew.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.archive.cases import Case
from fedcad.client.archive.crash_marker import PATIENCE, CrashMarker
from fedcad.client.archive.header import DEFAULT_LIMITS, PixelLimits
from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.preprocessing import PREPROCESSING_VERSION, preprocess
from fedcad.client.archive.reasons import TEMPORARY, Reason, Reject, UnusableFile
from fedcad.shared.canonical import hash_of
from fedcad.shared.config.study import PreprocessingConfig
from fedcad.shared.errors import DataError

_CHUNK = 32
_DTYPE = np.dtype("<i2")
_BUSY_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class _Outcome:
    """Pixels of a case, or why it has none."""

    case: Case
    image: NDArray[np.int16] | None
    reason: Reason | None = None
    sentence: str = ""


class TensorCache:
    """The cache of one site for one preprocessing. Several processes may open and fill it at once."""

    def __init__(
        self, folder: Path, config: PreprocessingConfig, *, limits: PixelLimits = DEFAULT_LIMITS
    ) -> None:
        """Open the cache below a folder, made if absent.

        Raises:
            DataError: The folder cannot be written or the cache is damaged.
        """
        self.folder = folder / cache_key(config)
        self._config = config
        self._limits = limits
        self._shape = (config.size, config.size)
        self._slot_bytes = config.size * config.size * _DTYPE.itemsize
        self._pixels = self.folder / "pixels.int16"
        self._map: NDArray[np.int16] | None = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("pixels.int16", "slots.sqlite", "lock", "decoding"):
                os.close(os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise DataError(f"the tensor cache {self.folder} cannot be made ({error.strerror})") from error
        with self._exclusive(), self._rows() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS slots (case_id TEXT PRIMARY KEY, size INTEGER NOT NULL, "
                "mtime_ns INTEGER NOT NULL, slot INTEGER UNIQUE, reason TEXT, sentence TEXT NOT NULL)"
            )
            self._forget_lost_slots(connection)

    def fill(
        self, cases: Sequence[Case], *, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Reject, ...]:
        """Decode and keep every case that is not yet there.

        Args:
            cases: Cases wanted.
            progress: Called with (images decoded, images to decode).

        Returns:
            Cases that cannot be decoded; the subject is the case_id.

        Raises:
            DataError: The disk is full, or the cache cannot be written.
        """
        try:
            with self._exclusive(), self._rows() as connection, self._marker() as marker:
                known = _known(connection)
                missing = [case for case in cases if not _is_done(case, known)]
                for start in range(0, len(missing), _CHUNK):
                    self._write(
                        connection, [self._decode(case, marker) for case in missing[start : start + _CHUNK]]
                    )
                    if progress is not None:
                        progress(min(start + _CHUNK, len(missing)), len(missing))
                known = _known(connection)
        except OSError as error:
            raise DataError(f"the tensor cache {self.folder} cannot be written ({error.strerror})") from error
        self._map = None
        return tuple(
            Reject(reason=Reason(reason), subject=case.case_id, sentence=sentence)
            for case in cases
            for _, _, _, reason, sentence in [known[case.case_id]]
            if reason is not None
        )

    def slots(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """Return the slot of each case, shape (cases,), for :meth:`gather`.

        Raises:
            DataError: A case is not in the cache; fill it first.
        """
        with self._rows() as connection:
            known = _known(connection)
        slots = [known[case.case_id][2] if _is_done(case, known) else None for case in cases]
        if None in slots:
            raise DataError(
                f"{slots.count(None)} of {len(slots)} cases are not in the tensor cache; fill it first"
            )
        return np.array(slots, dtype=np.int64)

    def gather(self, slots: NDArray[np.int64]) -> Tensor:
        """Return images, int16, shape (B, size, size), as a copy that the caller may change."""
        if self._map is None or (len(slots) and int(slots.max()) >= len(self._map)):
            count = self._pixels.stat().st_size // self._slot_bytes
            shape = (count, *self._shape)
            self._map = (
                np.memmap(self._pixels, dtype=_DTYPE, mode="r", shape=shape)
                if count
                else np.empty(shape, _DTYPE)
            )
        return torch.from_numpy(np.take(self._map, slots, axis=0))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock of this cache; the kernel frees it when the process ends, however it ends."""
        with (self.folder / "lock").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _rows(self) -> Iterator[sqlite3.Connection]:
        """Open the table of slots."""
        path = self.folder / "slots.sqlite"
        try:
            with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the tensor cache {self.folder} is damaged ({error}); remove the folder to build it anew"
            ) from error

    def _forget_lost_slots(self, connection: sqlite3.Connection) -> None:
        """Drop rows whose slot lies beyond the file, for instance after a restored backup."""
        count = self._pixels.stat().st_size // self._slot_bytes
        connection.execute("DELETE FROM slots WHERE slot >= ?", (count,))

    def _marker(self) -> CrashMarker:
        """Return the marker of the case in work."""
        return CrashMarker(self.folder / "decoding")

    def _decode(self, case: Case, marker: CrashMarker) -> _Outcome:
        """Read and preprocess one case, or say why not."""
        if marker.is_deadly(case.case_id):
            sentence = f"the process ended {PATIENCE} times while this file was decoded"
            return _Outcome(case, None, Reason.DECODER_CRASHED, sentence)
        marker.enter(case.case_id)
        try:
            image = preprocess(read_display_pixels(case.path, limits=self._limits), self._config)
            status = case.path.stat()
        except UnusableFile as error:
            return _Outcome(case, None, error.reason, error.sentence)
        except OSError as error:
            return _Outcome(case, None, Reason.UNREADABLE, f"the file vanished ({error.strerror})")
        if (status.st_size, status.st_mtime_ns) != (case.size, case.mtime_ns):
            sentence = "the file changed since it was indexed; open the archive again"
            return _Outcome(case, None, Reason.CHANGED_WHILE_READING, sentence)
        return _Outcome(case, image)

    def _write(self, connection: sqlite3.Connection, outcomes: list[_Outcome]) -> None:
        """Write images behind the last valid slot, sync them, then commit their rows."""
        (following,) = connection.execute("SELECT coalesce(max(slot), -1) + 1 FROM slots").fetchone()
        # A changed case leaves its old slot to readers that still have it mapped; it gets a new one.
        end = max(following, self._retired(connection))
        rows: list[tuple[str, int, int, int | None, str | None, str]] = []
        images: list[NDArray[np.int16]] = []
        for outcome in outcomes:
            slot = None if outcome.image is None else end + len(images)
            if outcome.image is not None:
                images.append(outcome.image)
            case = outcome.case
            rows.append((case.case_id, case.size, case.mtime_ns, slot, outcome.reason, outcome.sentence))
        self._append(images, end)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute(f"PRAGMA user_version = {end + len(images)}")
        connection.execute("COMMIT")

    def _retired(self, connection: sqlite3.Connection) -> int:
        """Return the first slot that never had a row, kept in the database's user_version."""
        (first,) = connection.execute("PRAGMA user_version").fetchone()
        return int(first)

    def _append(self, images: list[NDArray[np.int16]], slot: int) -> None:
        """Write images from a slot on and wait until the disk has them."""
        content = memoryview(b"".join(image.astype(_DTYPE).tobytes() for image in images))
        descriptor = os.open(self._pixels, os.O_WRONLY | os.O_CLOEXEC)
        try:
            offset = slot * self._slot_bytes
            while content:
                written = os.pwrite(descriptor, content, offset)
                content, offset = content[written:], offset + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cache_key(config: PreprocessingConfig) -> str:
    """Return the name of a preprocessing's cache: everything that decides what a cached pixel is."""
    kept = config.model_dump(mode="json", exclude={"intensity"})
    return hash_of({"preprocessing": kept, "version": PREPROCESSING_VERSION})[:16]


_Known = dict[str, tuple[int, int, int | None, str | None, str]]


def _known(connection: sqlite3.Connection) -> _Known:
    """Return size, time, slot, reason and sentence of every case in the cache."""
    rows = connection.execute("SELECT case_id, size, mtime_ns, slot, reason, sentence FROM slots")
    return {
        case_id: (size, mtime_ns, slot, reason, text) for case_id, size, mtime_ns, slot, reason, text in rows
    }


def _is_done(case: Case, known: _Known) -> bool:
    """Whether a case need not be decoded (again)."""
    row = known.get(case.case_id)
    if row is None or row[:2] != (case.size, case.mtime_ns):
        return False
    return row[3] is None or Reason(row[3]) not in TEMPORARY
