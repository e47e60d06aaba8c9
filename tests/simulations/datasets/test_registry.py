from pathlib import Path

import pytest

from fedcad.shared.config.simulation import (
    DataSetConfig,
    DicomTreeData,
    ImageFolderData,
    MedMNISTData,
    PhantomData,
)
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.dicom_tree import DicomTreeDataSet
from fedcad.simulations.datasets.image_folder import ImageFolderDataSet
from fedcad.simulations.datasets.medmnist import MedMNISTDataSet
from fedcad.simulations.datasets.registry import open_data_set

FOLDERS: list[tuple[DataSetConfig, type]] = [
    (ImageFolderData(kind="image-folder"), ImageFolderDataSet),
    (DicomTreeData(kind="dicom-tree"), DicomTreeDataSet),
    (MedMNISTData(kind="medmnist", file="x.npz", classes=("a", "b")), MedMNISTDataSet),
]


@pytest.mark.parametrize(("config", "reader"), FOLDERS)
def test_each_kind_has_its_reader(config: DataSetConfig, reader: type, tmp_path: Path) -> None:
    assert isinstance(open_data_set(config, tmp_path), reader)


@pytest.mark.parametrize("config", [config for config, _ in FOLDERS])
def test_a_folder_is_needed_and_must_exist(config: DataSetConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="add --data FOLDER"):
        open_data_set(config, None)
    with pytest.raises(DataError, match="there is no such folder"):
        open_data_set(config, tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        open_data_set(config, tmp_path / "file")


def test_a_phantom_needs_no_folder() -> None:
    records = open_data_set(PhantomData(kind="phantom", patients=2, size=64), None).records()
    assert len(list(records)) == 2


def test_a_folder_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave out --data"):
        open_data_set(PhantomData(kind="phantom", patients=2, size=64), tmp_path)
