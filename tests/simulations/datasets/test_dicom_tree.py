from pathlib import Path

import numpy as np
import pytest

from fedcad.shared.config.simulation import DicomTreeData
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import Acquisition
from fedcad.simulations.datasets.dicom_tree import DicomTreeDataSet
from fedcad.simulations.dicom_objects import derive_identity, encode_object

CONFIG = DicomTreeData(kind="dicom-tree")
PIXELS = np.arange(20, dtype=np.uint16).reshape(4, 5) * 100


def _write(root: Path, name: str, acquisition: Acquisition | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = derive_identity(patient_id="x", record_id=name, site="s")
    path.write_bytes(encode_object(PIXELS, identity=identity, acquisition=acquisition or Acquisition()))


def _table(root: Path, rows: str) -> None:
    (root / "labels.csv").write_text(f"file,patient_id,label,age\n{rows}", encoding="utf-8")


def test_records_carry_table_and_attributes(tmp_path: Path) -> None:
    inverted = Acquisition(vendor="Acme", view="PA", photometric="MONOCHROME1", bits_stored=12)
    _write(tmp_path, "north/1.dcm", inverted)
    _write(tmp_path, "2.dcm")
    _table(tmp_path, "north/1.dcm,p1,normal,60\n2.dcm,p2,nodule,\n")
    first, second = DicomTreeDataSet(CONFIG, tmp_path).records()
    assert (first.record_id, first.patient_id, first.label) == ("north/1.dcm", "p1", "normal")
    assert (first.folder, second.folder) == ("north", tmp_path.name)
    assert first.columns == {"age": "60"}
    assert first.acquisition["vendor"] == "Acme"
    assert first.acquisition["photometric"] == "MONOCHROME1"
    assert np.array_equal(first.read_pixels(), PIXELS)
    assert np.array_equal(second.read_pixels(), PIXELS)


def test_bad_files_are_rejected_and_others_kept(tmp_path: Path) -> None:
    _write(tmp_path, "1.dcm")
    (tmp_path / "text.dcm").write_text("hello")
    (tmp_path / "twin.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    _table(tmp_path, "1.dcm,p1,a,\ntext.dcm,p1,a,\nabsent.dcm,p1,a,\ntwin.dcm,p2,a,\n")
    data_set = DicomTreeDataSet(CONFIG, tmp_path)
    assert len(list(data_set.records())) == 1
    reasons = {bad.file: bad.reason for bad in data_set.rejected}
    assert "not a readable DICOM image" in reasons["text.dcm"]
    assert "no such file" in reasons["absent.dcm"]
    assert reasons["twin.dcm"] == "the same bytes as 1.dcm"


def test_dicom_files_that_no_row_names_are_reported(tmp_path: Path) -> None:
    for name in ("1.dcm", "north/IM0001", "2.dcm"):
        _write(tmp_path, name)
    (tmp_path / "README").write_text("no DICOM")
    _table(tmp_path, "1.dcm,p1,a,\n2.dcm,p1,,\n")
    data_set = DicomTreeDataSet(CONFIG, tmp_path)
    assert len(list(data_set.records())) == 1
    assert [(bad.file, bad.reason) for bad in data_set.rejected] == [
        ("2.dcm", "line 3: the column label is empty"),
        ("north/IM0001", "no row of labels.csv names it"),
    ]


def test_an_absent_table_or_column_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.labels 'labels.csv' in .*no such file"):
        list(DicomTreeDataSet(CONFIG, tmp_path).records())
    (tmp_path / "labels.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="lacks the column patient_id"):
        list(DicomTreeDataSet(CONFIG, tmp_path).records())
