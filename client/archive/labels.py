"""The label table that a hospital exports from its information system: read whole, checked row by row."""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fedcad.client.archive.reasons import Reason, Reject
from fedcad.shared.errors import DataError

COLUMNS = ("sop_instance_uid", "patient_id", "label")
"""Columns that the table must have; others are ignored."""

MAX_BYTES = 512 * 2**20
"""Largest table that is read."""


@dataclass(frozen=True)
class LabelRow:
    """The label of one image.

    Attributes:
        sop_instance_uid: Which image.
        patient_id: Whose.
        label: Name of the class.
    """

    sop_instance_uid: str
    patient_id: str
    label: str


@dataclass(frozen=True)
class LabelTable:
    """Labels that can be used, and rows that cannot.

    Attributes:
        rows: One row for each image, in order of SOP Instance UID.
        rejects: Rows left out; the subject is the line number or the SOP Instance UID.
    """

    rows: tuple[LabelRow, ...]
    rejects: tuple[Reject, ...]


def read_labels(path: Path, *, max_bytes: int = MAX_BYTES) -> LabelTable:
    """Read a label table: comma-separated UTF-8 (with or without byte order mark), first line the names.

    Guarantees:
        The result does not depend on the order of the rows. Messages never quote the table: a table without
        its header line has a patient in the first line.

    Raises:
        DataError: The table is absent, too large, not UTF-8, not CSV, empty or lacks a column.
    """
    reader = csv.reader(io.StringIO(_read_text(path, max_bytes), newline=""), strict=True)
    by_instance: dict[str, set[LabelRow]] = defaultdict(set)
    rejects: list[Reject] = []
    try:
        positions = _positions(path, next(reader, []))
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row, reject = _parse(cells, positions, reader.line_num)
                if reject is None and row in by_instance[row.sop_instance_uid]:
                    reject = _reject(Reason.DUPLICATE_LABEL_ROW, reader.line_num)
                if reject is not None:
                    rejects.append(reject)
                else:
                    by_instance[row.sop_instance_uid].add(row)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num} is not CSV ({error}); export the table as comma-separated UTF-8"
        ) from error
    return _resolve(by_instance, rejects)


def _read_text(path: Path, max_bytes: int) -> str:
    """Return the table's text."""
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise DataError(f"{path}: the label table cannot be read ({error.strerror})") from error
    if len(content) > max_bytes:
        raise DataError(f"{path}: the label table is larger than {max_bytes} bytes; split the archive")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: the label table is not UTF-8 (byte {error.start}); export it as CSV in UTF-8"
        ) from error


def _positions(path: Path, header: list[str]) -> dict[str, int]:
    """Return where each needed column is."""
    names = [name.strip().lower() for name in header]
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise DataError(
            f"{path}: the first line must name the columns {', '.join(COLUMNS)} once each, separated by "
            f"commas; missing or repeated: {', '.join(missing)} ({len(header)} columns found)"
        )
    return {name: names.index(name) for name in COLUMNS}


def _parse(cells: list[str], positions: dict[str, int], line: int) -> tuple[LabelRow, Reject | None]:
    """Return a row, and why it cannot be used."""
    values = {name: cells[place].strip() if place < len(cells) else "" for name, place in positions.items()}
    row = LabelRow(**values)
    if not row.sop_instance_uid or not row.patient_id:
        return row, _reject(Reason.INCOMPLETE_ROW, line)
    return row, None if row.label else _reject(Reason.EMPTY_LABEL, line)


def _reject(reason: Reason, line: int) -> Reject:
    """Return the reject of a line."""
    sentences = {
        Reason.INCOMPLETE_ROW: "the row lacks sop_instance_uid or patient_id",
        Reason.EMPTY_LABEL: "the row has no label",
        Reason.DUPLICATE_LABEL_ROW: "the row repeats an earlier one, which is used",
    }
    return Reject(reason=reason, subject=f"line {line}", sentence=sentences[reason])


def _resolve(by_instance: dict[str, set[LabelRow]], rejects: list[Reject]) -> LabelTable:
    """Drop instances whose rows contradict each other: which one is right only the hospital knows."""
    rows = [next(iter(rows)) for rows in by_instance.values() if len(rows) == 1]
    conflicts = [
        Reject(
            reason=Reason.CONFLICTING_LABELS,
            subject=instance,
            sentence="rows of the table give this image different labels or patients; none is used",
        )
        for instance, rows in sorted(by_instance.items())
        if len(rows) > 1
    ]
    return LabelTable(tuple(sorted(rows, key=lambda row: row.sop_instance_uid)), (*rejects, *conflicts))
