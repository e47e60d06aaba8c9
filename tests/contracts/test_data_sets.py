"""What every reader of data sets must do: add a sample for a new reader to SAMPLES.

Partition, writing of archives and training rely on these properties and on nothing else.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedcad.shared.config.simulation import (
    DataSetConfig,
    DicomTreeData,
    ImageFolderData,
    MedMNISTData,
    PhantomData,
)
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import Acquisition, parse_acquisition
from fedcad.simulations.datasets.interface import DataSet, Pixels, Record
from fedcad.simulations.datasets.registry import open_data_set
from fedcad.simulations.dicom_objects import derive_identity, encode_object


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A small data set and what is in it.

    Attributes:
        config: Its section of a simulation file.
        write: Writes it into an existing folder; None for a data set that is computed.
        patients: Patient of every record, in the reader's order.
        labels: Class of every record, in the same order.
        pixels: Grey values by place in that order, larger is brighter, of those that are stored without loss.
        sources: For each file that holds one image, the place of its record.
    """

    config: DataSetConfig
    write: Callable[[Path], None] | None = None
    patients: tuple[str, ...]
    labels: tuple[str, ...]
    pixels: Mapping[int, Pixels] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)


RAMP = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
DEEP = np.arange(30, dtype=np.uint16).reshape(5, 6) * 130


def _write_image_folder(root: Path) -> None:
    for name, rows in {"a": "1.png,p1,s,normal\n2.png,p1,s,nodule\n", "b": "x.png,p1,t,normal\n"}.items():
        (root / name).mkdir()
        (root / name / "labels.csv").write_text(f"file,patient_id,site,label\n{rows}")
    Image.fromarray(RAMP).save(root / "a/1.png")
    Image.fromarray(DEEP).save(root / "a/2.png")
    Image.fromarray(RAMP[::-1]).save(root / "b/x.png")


def _write_dicom_tree(root: Path) -> None:
    kinds = {
        "north/1.dcm": Acquisition(vendor="Acme", photometric="MONOCHROME1", bits_stored=12),
        "north/2.dcm": Acquisition(view="PA", bits_stored=16),
        "south/1.dcm": Acquisition(),
    }
    for name, acquisition in kinds.items():
        (root / name).parent.mkdir(exist_ok=True)
        identity = derive_identity(patient_id="of the file", record_id=name, site="s")
        pixels = RAMP if name.startswith("south") else DEEP
        (root / name).write_bytes(encode_object(pixels, identity=identity, acquisition=acquisition))
    rows = "north/1.dcm,p1,normal\nnorth/2.dcm,p1,nodule\nsouth/1.dcm,p2,normal\n"
    (root / "labels.csv").write_text(f"file,patient_id,label\n{rows}")


def _write_medmnist(root: Path) -> None:
    arrays = {}
    for number, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"] = np.stack([RAMP + number, RAMP[::-1] + number])
        arrays[f"{split}_labels"] = np.array([[0], [1]], dtype=np.uint8)
    np.savez_compressed(root / "small.npz", **arrays)


MEDMNIST_IDS = tuple(
    f"small/{split}/{number:06d}" for split in ("train", "val", "test") for number in range(2)
)
PHANTOM = PhantomData(kind="phantom", patients=3, images_per_patient=2, size=64, classes=("normal", "nodule"))
SAMPLES = {
    "phantom": Sample(
        config=PHANTOM,
        patients=tuple(f"phantom-1-{number:06d}" for number in (0, 0, 1, 1, 2, 2)),
        labels=("normal", "normal", "nodule", "nodule", "normal", "normal"),
    ),
    "image-folder": Sample(
        config=ImageFolderData(kind="image-folder"),
        write=_write_image_folder,
        patients=("a/p1", "a/p1", "b/p1"),
        labels=("normal", "nodule", "normal"),
        pixels={0: RAMP, 1: DEEP, 2: RAMP[::-1]},
        sources={"a/1.png": 0, "a/2.png": 1, "b/x.png": 2},
    ),
    "dicom-tree": Sample(
        config=DicomTreeData(kind="dicom-tree"),
        write=_write_dicom_tree,
        patients=("p1", "p1", "p2"),
        labels=("normal", "nodule", "normal"),
        pixels={0: DEEP, 1: DEEP, 2: RAMP},
        sources={"north/1.dcm": 0, "north/2.dcm": 1, "south/1.dcm": 2},
    ),
    "medmnist": Sample(
        config=MedMNISTData(kind="medmnist", file="small.npz", classes=("normal", "nodule")),
        write=_write_medmnist,
        patients=MEDMNIST_IDS,
        labels=("normal", "nodule") * 3,
        pixels={0: RAMP, 3: RAMP[::-1] + 1, 5: RAMP[::-1] + 2},
    ),
}
ON_DISK = [kind for kind, sample in SAMPLES.items() if sample.write is not None]


@pytest.fixture(params=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


def written(sample: Sample, folder: Path) -> DataSet:
    """Write a sample into a new folder and open it."""
    if sample.write is None:
        return open_data_set(sample.config, None)
    folder.mkdir()
    sample.write(folder)
    return open_data_set(sample.config, folder)


def described(record: Record) -> tuple[object, ...]:
    """Everything that a record says before its pixels are read."""
    known = (record.record_id, record.content_id, record.patient_id, record.label, record.folder)
    return (*known, dict(record.columns), dict(record.acquisition), repr(record.truth))


def check_pixels(record: Record) -> Pixels:
    """Read an image and hold it against what the interface promises."""
    pixels = record.read_pixels()
    assert type(pixels) is np.ndarray
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.ndim == 2
    assert pixels.size
    bits = parse_acquisition(record.acquisition).bits_stored
    assert bits is None or int(pixels.max()) < 2**bits
    return pixels


def test_every_registered_reader_has_a_sample() -> None:
    union, *_ = get_args(DataSetConfig)
    kinds = {get_args(config.model_fields["kind"].annotation)[0] for config in get_args(union)}
    assert kinds == set(SAMPLES)
    assert all(sample.config.kind == kind for kind, sample in SAMPLES.items())


def test_records_are_those_of_the_sample(sample: Sample, tmp_path: Path) -> None:
    records = list(written(sample, tmp_path / "data").records())
    assert tuple(record.patient_id for record in records) == sample.patients
    labels = tuple(record.label for record in records)
    assert sorted(labels) == sorted(sample.labels)
    classes = getattr(sample.config, "classes", sample.labels)
    assert set(labels) <= set(classes)
    if sample.write is not None:
        assert labels == sample.labels


def test_names_are_unique_and_hashes_are_hashes(sample: Sample, tmp_path: Path) -> None:
    records = list(written(sample, tmp_path / "data").records())
    assert len({record.record_id for record in records}) == len(records)
    for record in records:
        assert all((record.record_id, record.patient_id, record.label, record.folder))
        assert len(bytes.fromhex(record.content_id)) == hashlib.sha256().digest_size
        texts = [*record.columns.items(), *record.acquisition.items()]
        assert all(isinstance(text, str) for pair in texts for text in pair)
        parse_acquisition(record.acquisition)


def test_the_order_and_all_records_are_the_same_in_every_pass_and_place(
    sample: Sample, tmp_path: Path
) -> None:
    data_set = written(sample, tmp_path / "data")
    first = [described(record) for record in data_set.records()]
    assert [described(record) for record in data_set.records()] == first
    if sample.write is None:
        again = open_data_set(sample.config, None)
    else:
        # Written anew from the last file to the first, so that the file system lists them otherwise.
        (tmp_path / "other").mkdir()
        copy = tmp_path / "other" / "data"
        for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
            if path.is_file():
                target = copy / path.relative_to(tmp_path / "data")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        again = open_data_set(sample.config, copy)
    assert [described(record) for record in again.records()] == first


def test_two_passes_at_the_same_time_do_not_disturb_each_other(sample: Sample, tmp_path: Path) -> None:
    data_set = written(sample, tmp_path / "data")
    pairs = list(zip(data_set.records(), data_set.records(), strict=True))
    assert len(pairs) == len(sample.patients)
    assert all(described(one) == described(other) for one, other in pairs)


def test_images_have_the_promised_type_and_grey_values(sample: Sample, tmp_path: Path) -> None:
    records = list(written(sample, tmp_path / "data").records())
    images = [check_pixels(record) for record in records]
    for place, expected in sample.pixels.items():
        assert images[place].dtype == expected.dtype
        assert np.array_equal(images[place], expected)


def test_an_image_is_never_read_twice_differently(sample: Sample, tmp_path: Path) -> None:
    """Whoever gets an image may change it: the next reader gets what is stored."""
    records = list(written(sample, tmp_path / "data").records())
    first = [record.read_pixels() for record in records]
    expected = [(image.dtype, image.shape, image.tobytes()) for image in first]
    for image in first:
        if image.flags.writeable:
            image[...] = ~image
    backwards = [record.read_pixels() for record in reversed(records)]
    assert [(image.dtype, image.shape, image.tobytes()) for image in reversed(backwards)] == expected


def test_records_of_one_content_have_the_same_pixels(sample: Sample, tmp_path: Path) -> None:
    """Caches and archives are keyed by content."""
    data_sets = [written(sample, tmp_path / folder) for folder in ("one", "other")]
    records = [record for data_set in data_sets for record in data_set.records()]
    first = {record.content_id: record.read_pixels() for record in records[: len(sample.patients)]}
    for record in records:
        assert np.array_equal(record.read_pixels(), first[record.content_id])


def test_opening_reads_nothing(sample: Sample, tmp_path: Path) -> None:
    if sample.write is None:
        return
    data_set = open_data_set(sample.config, tmp_path)
    with pytest.raises(DataError, match=tmp_path.name):
        list(data_set.records())
    sample.write(tmp_path)
    assert len(list(data_set.records())) == len(sample.patients)


# Hostile input.


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x00" * 4096, b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"]
)
@pytest.mark.parametrize("kind", ON_DISK)
def test_a_file_of_something_else_is_left_out_with_a_reason(
    kind: str, content: bytes, tmp_path: Path
) -> None:
    sample = SAMPLES[kind]
    data_set = written(sample, tmp_path / "data")
    whole = [described(record) for record in data_set.records()]
    for file, place in sample.sources.items():
        path = tmp_path / "data" / file
        kept = path.read_bytes()
        path.write_bytes(content)
        left = [described(record) for record in data_set.records()]
        assert left == whole[:place] + whole[place + 1 :]
        [rejection] = data_set.rejected  # type: ignore[attr-defined]
        assert rejection.file == file
        assert len(rejection.reason) > 10
        path.write_bytes(kept)
    assert [described(record) for record in data_set.records()] == whole
    assert not getattr(data_set, "rejected", [])


@pytest.mark.parametrize("kind", ON_DISK)
def test_files_that_hold_more_than_one_image_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    """Tables and files of arrays: nothing of the data set can be used without them."""
    sample = SAMPLES[kind]
    data_set = written(sample, tmp_path / "data")
    shared = [path for path in files_of(tmp_path / "data") if path not in sample.sources]
    assert shared
    for file in shared:
        path = tmp_path / "data" / file
        kept = path.read_bytes()
        for content in (b"", b"\xff\xfe\x00garbage", b'"never closed', kept[: len(kept) // 8]):
            path.write_bytes(content)
            with pytest.raises(DataError, match=path.name):
                list(data_set.records())
        path.unlink()
        assert is_missed(data_set, sample, file)
        path.write_bytes(kept)
    assert len(list(data_set.records())) == len(sample.patients)


def is_missed(data_set: DataSet, sample: Sample, file: str) -> bool:
    """Whether a reader says that a file has gone: one folder without a table may be left out by name."""
    try:
        records = list(data_set.records())
    except DataError as error:
        return Path(file).name in str(error)
    rejected = getattr(data_set, "rejected", [])
    return len(records) < len(sample.patients) and any(Path(file).name in bad.reason for bad in rejected)


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The samples on disk, never changed."""
    folder = tmp_path_factory.mktemp("originals")
    for kind in ON_DISK:
        written(SAMPLES[kind], folder / kind)
    return {kind: folder / kind for kind in ON_DISK}


@pytest.mark.parametrize("kind", ON_DISK)
@given(chosen=st.integers(0, 99), place=st.floats(0, 1), value=st.integers(1, 255), is_cut=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_damaged_byte_or_a_cut_file_ends_in_a_reason_or_in_a_whole_image(
    originals: Mapping[str, Path],
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    chosen: int,
    place: float,
    value: int,
    is_cut: bool,
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(originals[kind], folder)
    files = files_of(folder)
    path = folder / files[chosen % len(files)]
    content = bytearray(path.read_bytes())
    position = min(int(place * len(content)), len(content) - 1)
    content[position] ^= value
    path.write_bytes(content[:position] if is_cut else content)
    data_set = open_data_set(SAMPLES[kind].config, folder)
    try:
        records = list(data_set.records())
    except DataError as error:
        assert len(str(error)) > 10
        return
    for record in records:
        try:
            check_pixels(record)
        except DataError as error:
            assert len(str(error)) > 10
