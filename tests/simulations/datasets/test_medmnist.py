from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcad.shared.config.simulation import MedMNISTData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.medmnist import MedMNISTDataSet

CONFIG = MedMNISTData(kind="medmnist", file="small.npz", classes=("normal", "pneumonia"))


def _arrays(colour: bool = False) -> dict[str, Any]:
    shape = (3, 4, 5, 3) if colour else (3, 4, 5)
    generator = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array([[0], [1], [0]], dtype=np.uint8)
    return arrays


def _data_set(folder: Path, arrays: dict[str, Any]) -> MedMNISTDataSet:
    np.savez_compressed(folder / "small.npz", **arrays)
    return MedMNISTDataSet(CONFIG, folder)


def test_every_image_is_a_record_and_a_patient(tmp_path: Path) -> None:
    arrays = _arrays()
    records = list(_data_set(tmp_path, arrays).records())
    assert len(records) == 9
    assert len({record.patient_id for record in records}) == 9
    assert [record.label for record in records[:3]] == ["normal", "pneumonia", "normal"]
    assert records[3].record_id == "small/val/000000"
    assert records[3].columns == {"split": "val"}
    assert np.array_equal(records[3].read_pixels(), arrays["val_images"][0])
    again = list(_data_set(tmp_path, arrays).records())
    assert [record.content_id for record in again] == [record.content_id for record in records]


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    arrays = _arrays(colour=True)
    arrays["train_images"][0, 0, :4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]
    record = next(iter(_data_set(tmp_path, arrays).records()))
    assert record.read_pixels().dtype == np.uint8
    assert record.read_pixels()[0, :4].tolist() == [76, 150, 29, 90]


def test_flat_labels_and_16_bits_are_fine(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["val_labels"] = np.array([1, 1, 1])
    arrays["val_images"] = np.full((3, 2, 2), 60000, dtype=np.uint16)
    records = list(_data_set(tmp_path, arrays).records())
    assert records[4].label == "pneumonia"
    assert records[4].read_pixels().max() == 60000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train_images", np.zeros((3, 4)), "train_images has shape"),
        ("train_images", np.zeros((3, 4, 5), dtype=np.float32), "uint8 or uint16"),
        ("val_images", np.zeros((3, 4, 5, 2), dtype=np.uint8), "val_images has shape"),
        ("val_labels", np.zeros((2, 1), dtype=np.uint8), r"shape \(3, 1\)"),
        ("val_labels", np.zeros((3, 14), dtype=np.uint8), "val_labels has shape"),
        ("test_labels", np.array([0.0, 1.0, 0.0]), "test_labels has shape"),
        ("test_labels", np.array([0, 2, 0]), "holds 0 to 2; data.classes names 2 classes"),
        ("test_labels", np.array([0, -1, 0]), "holds -1 to 0"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path: Path, name: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(_data_set(tmp_path, _arrays() | {name: value}).records())


def test_a_missing_array_is_named_with_what_is_there(tmp_path: Path) -> None:
    arrays = _arrays()
    del arrays["test_labels"]
    with pytest.raises(DataError, match="lacks test_labels; there is: train_images"):
        list(_data_set(tmp_path, arrays).records())


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    hostile = np.array([{"a": 1}] * 3, dtype=object)
    with pytest.raises(DataError, match=r"not a readable \.npz of plain arrays"):
        list(_data_set(tmp_path, _arrays() | {"train_labels": hostile}).records())


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x03\x04 broken"):
        (tmp_path / "small.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"not a readable \.npz"):
            list(MedMNISTDataSet(CONFIG, tmp_path).records())
    with (tmp_path / "small.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(DataError, match="is one array"):
        list(MedMNISTDataSet(CONFIG, tmp_path).records())


def test_a_file_with_one_damaged_byte_is_refused_wherever_it_matters(tmp_path: Path) -> None:
    data_set, path = _data_set(tmp_path, _arrays()), tmp_path / "small.npz"
    content = path.read_bytes()
    whole = [record.content_id for record in data_set.records()]
    refused = 0
    for position in range(0, len(content), 11):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        try:
            found = [record.content_id for record in data_set.records()]
        except DataError as error:
            refused += 1
            assert "small.npz" in str(error)
        else:
            assert found == whole, "zip keeps a checksum of every array"
    assert refused > len(content) / 11 / 4


@pytest.mark.parametrize("file", ["absent.npz", "../small.npz", "/small.npz"])
def test_files_outside_or_absent_are_refused(tmp_path: Path, file: str) -> None:
    config = MedMNISTData(kind="medmnist", file=file, classes=("a", "b"))
    with pytest.raises(DataError, match=r"data\.file"):
        list(MedMNISTDataSet(config, tmp_path).records())
