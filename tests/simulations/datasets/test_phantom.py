from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.config.simulation import PhantomData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.datasets.phantom import PhantomDataSet
from fedcad.simulations.phantom.radiograph import Radiograph, render
from fedcad.simulations.phantom.vendors import DETECTORS


def _records(patients: int, **changes: object) -> list[Record]:
    return list(PhantomDataSet(PhantomData(kind="phantom", patients=patients, **changes)).records())  # type: ignore[arg-type]


@given(
    seed=st.integers(0, 2**31),
    patients=st.integers(1, 6),
    more=st.integers(1, 5),
    images=st.integers(1, 2),
    size=st.sampled_from([64, 77]),
)
@settings(max_examples=8, deadline=None)
def test_more_patients_and_images_leave_earlier_ones_unchanged(
    seed: int, patients: int, more: int, images: int, size: int
) -> None:
    few = _records(patients, seed=seed, size=size, images_per_patient=images)
    many = {
        r.record_id: r for r in _records(patients + more, seed=seed, size=size, images_per_patient=images + 1)
    }
    for record in few:
        twin = many[record.record_id]
        assert (record.content_id, record.patient_id, record.label) == (
            twin.content_id,
            twin.patient_id,
            twin.label,
        )
        assert (record.acquisition, record.truth) == (twin.acquisition, twin.truth)
    np.testing.assert_array_equal(few[-1].read_pixels(), many[few[-1].record_id].read_pixels())


def test_same_configuration_same_bytes() -> None:
    first, second = _records(3, size=64, seed=9), _records(3, size=64, seed=9)
    for one, other in zip(first, second, strict=True):
        assert one.content_id == other.content_id
        assert one.read_pixels().tobytes() == other.read_pixels().tobytes()
    assert first[0].content_id != _records(1, size=64, seed=10)[0].content_id


def test_ids_are_unique_and_labels_belong_to_patients() -> None:
    records = _records(30, images_per_patient=3, size=64)
    assert len({record.record_id for record in records}) == 90
    assert len({record.content_id for record in records}) == 90
    assert len({record.patient_id for record in records}) == 30
    assert len({(record.patient_id, record.label, record.acquisition["vendor"]) for record in records}) == 30


@pytest.mark.parametrize("classes", [("normal", "opacity", "nodule"), ("nodule", "normal")])
def test_classes_are_balanced_in_every_block(classes: tuple[str, ...]) -> None:
    data_set = PhantomDataSet(PhantomData(kind="phantom", patients=1, classes=classes))  # type: ignore[arg-type]
    labels = [data_set.label_of(index) for index in range(300)]
    assert Counter(labels) == {name: 300 // len(classes) for name in classes}
    assert len({tuple(labels[i : i + len(classes)]) for i in range(0, 300, len(classes))}) > 1


def test_vendors_are_drawn_per_patient_about_equally() -> None:
    counts = Counter(record.acquisition["vendor"] for record in _records(300, size=64))
    assert set(counts) == {detector.vendor for detector in DETECTORS}
    assert min(counts.values()) > 25


def test_acquisition_and_truth_of_every_class() -> None:
    for record in _records(12, size=64):
        drawn = record.truth["drawn"]
        assert isinstance(drawn, Radiograph)
        pixels = record.read_pixels()
        np.testing.assert_array_equal(pixels, render(drawn))
        bits = int(record.acquisition["bits_stored"])
        assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16) and pixels.max() < 2**bits
        assert record.acquisition["view"] in {"PA", "AP"}
        assert record.acquisition["modality"] in {"DX", "CR"}
        assert record.acquisition["photometric"] in {"MONOCHROME1", "MONOCHROME2"}
        assert 64 * float(record.acquisition["pixel_spacing_mm"]) == pytest.approx(
            drawn.detector.field_mm, rel=1e-4
        )
        assert ("position_px" in record.truth) == (record.label != "normal")
        assert ("malignant" in record.truth) == (record.label == "nodule")
        if record.label != "normal":
            row, column = record.truth["position_px"]  # type: ignore[misc]
            assert 0 < row < 63 and 0 < column < 63


def test_records_are_lazy() -> None:
    # A million patients at the largest size: only what is taken is drawn, nothing is rendered.
    config = PhantomData(kind="phantom", patients=1_000_000, size=1024)
    assert len(list(islice(PhantomDataSet(config).records(), 5))) == 5


def test_largest_and_smallest_sizes() -> None:
    for size in (64, 1024):
        assert next(
            PhantomDataSet(PhantomData(kind="phantom", patients=1, size=size)).records()
        ).read_pixels().shape == (
            size,
            size,
        )


def test_repeated_class_is_refused() -> None:
    with pytest.raises(DataError, match="names a class twice"):
        PhantomDataSet(PhantomData(kind="phantom", patients=1, classes=("normal", "normal")))
