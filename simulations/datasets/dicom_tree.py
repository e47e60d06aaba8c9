"""A tree of DICOM files with a label table."""

import hashlib
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydicom import dcmread

from fedcad.shared.config.simulation import DicomTreeData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.dicom_grey import DICOM_ERRORS, describe_acquisition, read_dicom_grey
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.datasets.label_table import read_label_table
from fedcad.simulations.datasets.listed_files import (
    ListedFile,
    find_listed_files,
    find_unlisted_files,
    resolve_inside,
)
from fedcad.simulations.datasets.rejection import Rejection

REQUIRED_COLUMNS = ("file", "patient_id", "label")
"""Columns that the label table needs."""


class DicomTreeDataSet:
    """DICOM files (single frame, at most 16 bits) that one table lists.

    Acquisition facts (modality, vendor, model, view, spacing, …) come from the DICOM attributes. A record's
    folder is the first part of its path, so that one folder per hospital can be partitioned by folder.
    Patients are those of the table; the identity in the DICOM files is not read.

    Attributes:
        rejected: What was left out in the latest pass over :meth:`records`, with reasons: rows, and DICOM
            files that no row names.
    """

    def __init__(self, config: DicomTreeData, root: Path) -> None:
        """Remember where to read; nothing is read yet."""
        self._config = config
        self._root = root
        self.rejected: list[Rejection] = []

    def records(self) -> Iterator[Record]:
        """Yield the records in the order of the table's rows; see :class:`DataSet`.

        Raises:
            DataError: The table is absent, lacks a column or is no CSV.
        """
        try:
            table = resolve_inside(self._root, self._config.labels)
        except DataError as error:
            raise DataError(
                f"data.labels {self._config.labels!r} in {self._root}: {error}; point --data at the folder "
                "that holds the table, or give its path below --data in data.labels"
            ) from error
        rows = read_label_table(table, required=REQUIRED_COLUMNS)
        listed, self.rejected = find_listed_files(table.parent, rows)
        unlisted = find_unlisted_files(table.parent, rows, listed, is_data=_is_dicom)
        self.rejected += [Rejection(file, f"no row of {table.name} names it") for file in unlisted]
        seen: dict[str, str] = {}
        for item in listed:
            try:
                record = _record(item, table.parent.name)
                twin = seen.setdefault(record.content_id, record.record_id)
                if twin != record.record_id:
                    raise DataError(f"the same bytes as {twin}")
            except DataError as error:
                self.rejected.append(Rejection(item.name, str(error)))
            except OSError as error:
                self.rejected.append(Rejection(item.name, f"cannot be read ({type(error).__name__})"))
            else:
                yield record


def _is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do: PS3.10 section 7.1."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _record(item: ListedFile, root_name: str) -> Record:
    content = item.path.read_bytes()
    try:
        dataset = dcmread(io.BytesIO(content))
        acquisition = describe_acquisition(dataset)
    except DICOM_ERRORS as error:
        raise DataError(f"not a readable DICOM image ({type(error).__name__})") from error
    folder, _, rest = item.name.partition("/")
    return Record(
        record_id=item.name,
        content_id=hashlib.sha256(content).hexdigest(),
        patient_id=item.row.cells["patient_id"],
        label=item.row.cells["label"],
        folder=folder if rest else root_name,
        read_pixels=partial(read_dicom_grey, item.path),
        columns={
            key: text for key, text in item.row.cells.items() if key not in ("file", "patient_id", "label")
        },
        acquisition=acquisition,
    )
