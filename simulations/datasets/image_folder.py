"""Folders of images with a labels.csv, such as public chest X-ray collections."""

import fnmatch
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fedcad.shared.config.simulation import ImageFolderData
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import ACQUISITION_KEYS, parse_acquisition, view_position
from fedcad.simulations.datasets.grey_image import ImageFacts, inspect_image, read_grey
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.datasets.label_table import read_label_table
from fedcad.simulations.datasets.listed_files import ListedFile, find_listed_files, find_unlisted_files
from fedcad.simulations.datasets.rejection import Rejection

REQUIRED_COLUMNS = ("file", "patient_id", "site", "label")
"""Columns that every labels.csv needs."""

_TABLE = "labels.csv"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


class ImageFolderDataSet:
    """Every folder below a root whose name matches a pattern and that holds a labels.csv.

    Columns named like acquisition facts (view, modality, vendor, …) describe the acquisition too. Two files
    with the same bytes are one image: the second is rejected, so that it cannot reach training and test.

    Attributes:
        rejected: What was left out in the latest pass over :meth:`records`, with reasons: rows, image files
            that no row names, and folders of images without a table.
    """

    def __init__(self, config: ImageFolderData, root: Path) -> None:
        """Remember where to read; nothing is read yet."""
        self._config = config
        self._root = root
        self.rejected: list[Rejection] = []

    def records(self) -> Iterator[Record]:
        """Yield the records in the order of folders and rows; see :class:`DataSet`.

        Raises:
            DataError: No folder matches, or a labels.csv lacks a column or is no CSV.
        """
        tables = sorted(_folders_with_tables(self._root, set()))
        self.rejected = self._bare_folders(tables)
        seen: dict[str, str] = {}
        for folder in self._matching(tables):
            name = _folder_name(folder, self._root)
            rows = read_label_table(folder / _TABLE, required=REQUIRED_COLUMNS)
            listed, rejected = find_listed_files(folder, rows)
            unlisted = find_unlisted_files(folder, rows, listed, is_data=_is_image_name)
            rejected += [Rejection(file, f"no row of {_TABLE} names it") for file in unlisted]
            self.rejected += [Rejection(f"{name}/{bad.file}", bad.reason) for bad in rejected]
            for item in listed:
                try:
                    record = _record(name, item)
                    _refuse_twin(record, seen)
                except DataError as error:
                    self.rejected.append(Rejection(f"{name}/{item.name}", str(error)))
                except OSError as error:
                    reason = f"cannot be read ({type(error).__name__})"
                    self.rejected.append(Rejection(f"{name}/{item.name}", reason))
                else:
                    yield record

    def _bare_folders(self, tables: Sequence[Path]) -> list[Rejection]:
        """List folders that match, hold images and lack a table."""
        if self._root in tables:
            return []  # the folders are those of the root's own table
        there = (path for path in sorted(self._root.iterdir()) if not path.name.startswith("."))
        return [
            Rejection(path.name, f"a folder with images, but without a {_TABLE}")
            for path in there
            if path.is_dir()
            and self._is_chosen(path)
            and not any(table.resolve().is_relative_to(path.resolve()) for table in tables)
            and any(_is_image_name(file) for file in path.rglob("*"))
        ]

    def _matching(self, tables: Sequence[Path]) -> list[Path]:
        chosen = [folder for folder in tables if self._is_chosen(folder)]
        if not chosen:
            there = ", ".join(_folder_name(folder, self._root) for folder in tables) or "none"
            raise DataError(
                f"{self._root}: no folder matches {self._config.pattern!r} and holds a {_TABLE}; folders "
                f"with a {_TABLE}: {there}. Change data.pattern or data.exclude, or point --data elsewhere"
            )
        return chosen

    def _is_chosen(self, folder: Path) -> bool:
        name = folder.resolve().name if folder == self._root else folder.name
        is_excluded = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._config.exclude)
        return fnmatch.fnmatchcase(name, self._config.pattern) and not is_excluded


def _folders_with_tables(folder: Path, visited: set[Path]) -> Iterator[Path]:
    """Find folders that hold a table, links included; what lies below such a folder belongs to it."""
    real = folder.resolve()
    if real in visited:
        return
    visited.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check --data") from error
    if any(entry.name == _TABLE and entry.is_file() for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _folders_with_tables(Path(entry.path), visited)


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _folder_name(folder: Path, root: Path) -> str:
    return root.resolve().name if folder == root else folder.relative_to(root).as_posix()


def _record(folder: str, item: ListedFile) -> Record:
    content = item.path.read_bytes()
    facts = inspect_image(content)
    columns = {
        key: text for key, text in item.row.cells.items() if key not in ("file", "patient_id", "label")
    }
    return Record(
        record_id=f"{folder}/{item.name}",
        content_id=hashlib.sha256(content).hexdigest(),
        patient_id=f"{folder}/{item.row.cells['patient_id']}",
        label=item.row.cells["label"],
        folder=folder,
        read_pixels=partial(read_grey, item.path),
        columns=columns,
        acquisition=_acquisition(columns, facts, len(content)),
    )


def _acquisition(columns: dict[str, str], facts: ImageFacts, size: int) -> dict[str, str]:
    """Take the acquisition facts from the columns of the table and from the image file."""
    acquisition = {key: columns[key] for key in ACQUISITION_KEYS if columns.get(key)}
    view = view_position(acquisition.pop("view", ""))
    if view is not None:
        acquisition["view"] = view
    if facts.format == "JPEG":
        # DICOM wants the history of lossy compression kept: PS3.3 C.7.6.1.1.5.
        acquisition["lossy_method"] = "ISO_10918_1"
        acquisition["lossy_ratio"] = f"{facts.rows * facts.columns * facts.bytes_per_pixel / size:.2f}"
    parse_acquisition(acquisition)
    return acquisition


def _refuse_twin(record: Record, seen: dict[str, str]) -> None:
    twin = seen.setdefault(record.content_id, record.record_id)
    if twin != record.record_id:
        raise DataError(f"the same bytes as {twin}")
