"""Label tables (CSV) of data sets: the header is checked, bad rows are listed."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.errors import DataError


@dataclass(frozen=True)
class Row:
    """One row of a label table.

    Attributes:
        line: Line in the file, counted from 1 (the last line of a row that spans several).
        cells: Text by column, stripped of white space at both ends.
        surplus: Whether the row has more cells than the header.
    """

    line: int
    cells: Mapping[str, str]
    surplus: bool


def read_label_table(path: Path, *, required: Sequence[str]) -> list[Row]:
    """Read a CSV file in UTF-8 (with or without byte order mark) and check its header.

    Cells that a short row lacks are empty.

    Raises:
        DataError: The file cannot be read, is not a CSV in UTF-8, names a column twice or lacks one of
            the required columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            # strict: a quote that is never closed would otherwise swallow the rest of the table.
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required)
            return [_row(reader.line_num, header, cells) for cells in reader if any(cells)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: is not a well-formed CSV ({error}); check its quotes") from error


def _row(line: int, header: list[str], cells: list[str]) -> Row:
    padded = [*cells, *[""] * (len(header) - len(cells))]
    return Row(
        line=line,
        cells={name: cell.strip() for name, cell in zip(header, padded, strict=False)},
        surplus=len(cells) > len(header),
    )


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    there = ", ".join(header) or "nothing (the file is empty)"
    missing = [name for name in required if name not in header]
    if missing:
        hint = " The cells seem to be separated by ';'; save the table with commas." if ";" in there else ""
        raise DataError(
            f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"there is: {there}. Expected at least {', '.join(required)}.{hint}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {', '.join(twice)} more than once; name each column once")
