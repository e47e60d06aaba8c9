"""The files that a label table lists: inside their folder, present, and listed once."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.label_table import Row
from fedcad.simulations.datasets.rejection import Rejection


@dataclass(frozen=True)
class ListedFile:
    """A row of a label table whose file exists.

    Attributes:
        path: The file, with links resolved.
        name: Its path relative to the table's folder, with ``/``.
        row: The row.
    """

    path: Path
    name: str
    row: Row


def find_listed_files(folder: Path, rows: Sequence[Row]) -> tuple[list[ListedFile], list[Rejection]]:
    """Return the usable rows of a table (columns file, patient_id, label) and the rejected ones.

    A file that is listed again with the same patient and label is kept once. Where its rows disagree about
    patient or label nobody can tell which is right, so none is kept.
    """
    listed: list[ListedFile] = []
    rejected: list[Rejection] = []
    for row in rows:
        try:
            listed.append(_listed_file(folder, row))
        except DataError as error:
            rejected.append(Rejection(row.cells["file"] or f"line {row.line}", f"line {row.line}: {error}"))
    kept, repeated = _keep_once(listed)
    return kept, rejected + repeated


def find_unlisted_files(
    folder: Path, rows: Sequence[Row], listed: Sequence[ListedFile], *, is_data: Callable[[Path], bool]
) -> list[str]:
    """Return the files of data below a folder that no row of its table names, in order of name.

    Args:
        folder: The table's folder; hidden folders and links to folders are not entered.
        rows: All rows of the table.
        listed: Its usable rows.
        is_data: Whether a file would be data, so that licences and the like are not reported.
    """
    named = {os.path.normpath(row.cells["file"]) for row in rows} | {item.name for item in listed}
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.relative_to(folder).as_posix() not in named]
    return [path.relative_to(folder).as_posix() for path in sorted(found) if is_data(path)]


def resolve_inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a table or configuration names, with links resolved.

    Raises:
        DataError: The name is empty or absolute, leads out of the folder, or is no file.
    """
    if not name or "\0" in name:
        raise DataError("no file is named")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise DataError("the path is absolute; it must be relative to the table's folder")
    try:
        path, inside = (folder / name).resolve(), folder.resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # name too long, loop of links
        raise DataError(f"the path cannot be followed ({type(error).__name__})") from error
    if not path.is_relative_to(inside):
        raise DataError("the path leads out of the data set's folder")
    if not is_file:
        raise DataError("there is no such file")
    return path


def _listed_file(folder: Path, row: Row) -> ListedFile:
    if row.surplus:
        raise DataError("more cells than the header has columns; a comma may need quotes")
    for column in ("patient_id", "label"):
        if not row.cells[column]:
            raise DataError(f"the column {column} is empty")
    path = resolve_inside(folder, row.cells["file"])
    return ListedFile(path, path.relative_to(folder.resolve()).as_posix(), row)


def _keep_once(listed: Sequence[ListedFile]) -> tuple[list[ListedFile], list[Rejection]]:
    claims: dict[str, set[tuple[str, str]]] = {}
    for item in listed:
        claims.setdefault(item.name, set()).add((item.row.cells["patient_id"], item.row.cells["label"]))
    kept: dict[str, ListedFile] = {}
    rejected: list[Rejection] = []
    for item in listed:
        if len(claims[item.name]) > 1:
            reason = "listed more than once with different patients or labels"
            rejected.append(Rejection(item.name, f"line {item.row.line}: {reason}"))
        elif item.name in kept:
            first = kept[item.name].row.line
            rejected.append(Rejection(item.name, f"line {item.row.line}: listed already in line {first}"))
        else:
            kept[item.name] = item
    return list(kept.values()), rejected
