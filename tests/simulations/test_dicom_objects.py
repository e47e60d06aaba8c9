import io
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from fedcad.client.archive.pixels import read_display_pixels
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import Acquisition
from fedcad.simulations.dicom_objects import derive_identity, encode_object

IDENTITY = derive_identity(patient_id="cxr/p1", record_id="cxr/1.png", site="north")
PIXELS = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7


def _read(pixels: np.ndarray, acquisition: Acquisition) -> Dataset:
    return dcmread(io.BytesIO(encode_object(pixels, identity=IDENTITY, acquisition=acquisition)))


def test_identity_is_derived_and_consistent() -> None:
    again = derive_identity(patient_id="cxr/p1", record_id="cxr/1.png", site="north")
    other = derive_identity(patient_id="cxr/p1", record_id="cxr/2.png", site="north")
    assert again == IDENTITY
    assert other.patient_id == IDENTITY.patient_id
    uids = [IDENTITY.study_uid, IDENTITY.series_uid, IDENTITY.sop_uid]
    uids += [other.study_uid, other.series_uid, other.sop_uid]
    assert len(set(uids)) == 6
    assert all(len(uid) <= 64 for uid in uids)
    assert "cxr" not in IDENTITY.patient_id.lower()


def test_uids_do_not_confuse_names_that_join_to_the_same_text() -> None:
    one = derive_identity(patient_id="a", record_id="bc", site="s")
    two = derive_identity(patient_id="ab", record_id="c", site="s")
    assert one.sop_uid != two.sop_uid


def test_a_cr_object_says_what_is_known() -> None:
    acquisition = Acquisition(
        vendor="Acme\\X", model="M", view="PA", spacing_mm=(0.2, 0.1), lossy=("ISO_10918_1", 9.5)
    )
    dataset = _read(PIXELS, acquisition)
    assert dataset.SOPClassUID == ComputedRadiographyImageStorage
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (dataset.PatientID, dataset.InstitutionName) == (IDENTITY.patient_id, "north")
    assert (dataset.Modality, dataset.ViewPosition, dataset.Manufacturer) == ("CR", "PA", "Acme/X")
    assert list(dataset.ImagerPixelSpacing) == [0.2, 0.1]
    assert dataset.PixelSpacing == dataset.ImagerPixelSpacing
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 9.5)
    assert (dataset.PatientIdentityRemoved, dataset.BurnedInAnnotation) == ("YES", "NO")
    assert dataset.DeidentificationMethod
    assert (dataset.WindowCenter, dataset.WindowWidth) == (128, 256)
    assert np.array_equal(dataset.pixel_array, PIXELS)


def test_an_object_without_a_window_stays_without() -> None:
    assert "WindowCenter" not in _read(PIXELS, Acquisition(has_window=False))


def test_a_dx_object_is_for_presentation() -> None:
    dataset = _read(PIXELS, Acquisition(modality="DX", spacing_mm=(0.2, 0.2), view="AP"))
    assert dataset.SOPClassUID == DigitalXRayImageStorageForPresentation
    assert dataset.PresentationIntentType == "FOR PRESENTATION"
    assert dataset.PresentationLUTShape == "IDENTITY"
    assert dataset.AnatomicRegionSequence[0].CodeMeaning == "Chest"


def test_dx_without_spacing_is_refused() -> None:
    with pytest.raises(DataError, match="needs pixel_spacing_mm"):
        _read(PIXELS, Acquisition(modality="DX"))


def test_monochrome1_is_stored_inverted() -> None:
    acquisition = Acquisition(modality="DX", spacing_mm=(1.0, 1.0), photometric="MONOCHROME1", bits_stored=8)
    dataset = _read(PIXELS, acquisition)
    assert dataset.PresentationLUTShape == "INVERSE"
    assert np.array_equal(dataset.pixel_array, 255 - PIXELS)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_8_bit_values_are_spread_over_more_bits(bits: int) -> None:
    dataset = _read(np.array([[0, 128, 255]], dtype=np.uint8), Acquisition(bits_stored=bits))
    top = 2**bits - 1
    assert dataset.pixel_array.tolist() == [[0, round(128 * top / 255), top]]
    assert (dataset.BitsStored, dataset.HighBit) == (bits, bits - 1)
    assert dataset.BitsAllocated == (8 if bits == 8 else 16)


def test_values_beyond_the_depth_are_refused() -> None:
    with pytest.raises(DataError, match="reach 5000; bits_stored 12 allows 4095"):
        _read(np.full((2, 2), 5000, dtype=np.uint16), Acquisition(bits_stored=12))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4,), (2, 2, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="has shape"):
        encode_object(np.zeros(shape, dtype=np.uint8), identity=IDENTITY, acquisition=Acquisition())


def test_the_same_input_gives_the_same_bytes() -> None:
    one = encode_object(PIXELS, identity=IDENTITY, acquisition=Acquisition())
    assert one == encode_object(PIXELS, identity=IDENTITY, acquisition=Acquisition())


@given(
    hnp.arrays(
        np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 1023)
    ),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    st.sampled_from([10, 12, 16]),
)
@settings(max_examples=40, deadline=None)
def test_the_client_shows_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, photometric: str, bits: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "shown.dcm"
    acquisition = Acquisition(photometric=photometric, bits_stored=bits)
    path.write_bytes(encode_object(pixels, identity=IDENTITY, acquisition=acquisition))
    shown = read_display_pixels(path)
    assert np.allclose(shown, pixels / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_client_applies_the_window_in_grey_values(tmp_path: Path, photometric: str) -> None:
    pixels = np.array([[500, 1000, 1500, 2000, 3000]], dtype=np.uint16)
    # c - 1/2 - (w - 1)/2 = 1000 is black, 2000 is white: PS3.3 C.11.2.1.2.1.
    acquisition = Acquisition(photometric=photometric, bits_stored=12, window=(1500.5, 1001.0))
    path = tmp_path / "x.dcm"
    path.write_bytes(encode_object(pixels, identity=IDENTITY, acquisition=acquisition))
    assert np.allclose(read_display_pixels(path), [[0.0, 0.0, 0.5, 1.0, 1.0]], atol=1e-6)


VARIANTS = [
    Acquisition(
        modality=modality,
        photometric=photometric,
        bits_stored=bits,
        view=view,
        spacing_mm=(0.14, 0.14) if modality == "DX" or bits == 12 else None,
        lossy=("ISO_10918_1", 12.3) if bits == 8 else None,
        vendor="Ünïted",
    )
    for modality, photometric, bits, view in product(
        ("CR", "DX"), ("MONOCHROME1", "MONOCHROME2"), (8, 12, 16), (None, "PA", "LL")
    )
]


def test_an_independent_validator_finds_no_error(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    for number, acquisition in enumerate(VARIANTS):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(encode_object(PIXELS, identity=IDENTITY, acquisition=acquisition))
        found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in found.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], acquisition
        assert "CRImage" in found.stderr or "DXImageForPresentation" in found.stderr
