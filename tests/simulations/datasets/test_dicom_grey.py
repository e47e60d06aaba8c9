from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from fedcad.client.archive.pixels import read_display_pixels
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import parse_acquisition
from fedcad.simulations.datasets.dicom_grey import describe_acquisition, read_dicom_grey
from fedcad.simulations.dicom_objects import derive_identity, encode_object

STORED = np.array([[0, 1000, 2000, 4095]], dtype=np.uint16)
REAL = Path(__file__).parents[3] / ".." / "shared" / "data" / "dicom_pydicom_data"


def _dataset(stored: np.ndarray = STORED, bits: int = 12, **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", stored.tobytes())
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _read(folder: Path, dataset: Dataset) -> list[list[int]]:
    path = folder / "x.dcm"
    dataset.save_as(path, enforce_file_format=True)
    grey: list[list[int]] = read_dicom_grey(path).tolist()
    return grey


def test_stored_values_are_kept(tmp_path: Path) -> None:
    assert _read(tmp_path, _dataset()) == STORED.tolist()
    assert describe_acquisition(_dataset()) == {"modality": "CR", "bits_stored": "12", "window": "none"}


def test_monochrome1_is_turned(tmp_path: Path) -> None:
    dataset = _dataset(PhotometricInterpretation="MONOCHROME1")
    assert _read(tmp_path, dataset) == [[4095, 3095, 2095, 0]]
    assert describe_acquisition(dataset)["photometric"] == "MONOCHROME1"


def test_a_falling_rescale_turns_once_more(tmp_path: Path) -> None:
    falling = {"RescaleSlope": "-1", "RescaleIntercept": "4095"}
    assert _read(tmp_path, _dataset(**falling)) == [[4095, 3095, 2095, 0]]
    both = _dataset(PhotometricInterpretation="MONOCHROME1", **falling)
    assert _read(tmp_path, both) == STORED.tolist()


def test_signed_values_are_shifted(tmp_path: Path) -> None:
    stored = np.array([[-2048, -1, 0, 2047]], dtype=np.int16)
    assert _read(tmp_path, _dataset(stored)) == [[0, 2047, 2048, 4095]]


def test_bits_beyond_the_stored_ones_are_cut_off(tmp_path: Path) -> None:
    overlaid = STORED | np.uint16(0x8000)
    assert _read(tmp_path, _dataset(overlaid)) == STORED.tolist()


def test_padding_is_darkest(tmp_path: Path) -> None:
    dataset = _dataset(PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1")
    dataset.PixelPaddingRangeLimit = 4095
    assert _read(tmp_path, dataset) == [[4095, 3095, 2095, 0]]
    dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 0, 0
    assert _read(tmp_path, dataset) == [[0, 3095, 2095, 0]]


def test_the_window_is_given_in_grey_values() -> None:
    # Black at 1900 - 1/2 - 799/2 = 1500 and white at 2299; rescaled = 2 stored - 100, so stored 800 and
    # 1199.5, whose middle is 999.75.
    rescaled = {"RescaleSlope": "2", "RescaleIntercept": "-100", "WindowCenter": "1900", "WindowWidth": "800"}
    facts = describe_acquisition(_dataset(**rescaled))
    assert (facts["window_center"], facts["window_width"]) == ("1000.25", "400.5")
    facts = describe_acquisition(_dataset(PhotometricInterpretation="MONOCHROME1", **rescaled))
    assert facts["window_center"] == f"{4095 - 999.75 + 0.5:.8g}"
    exact = _dataset(WindowCenter="1000", WindowWidth="400", VOILUTFunction="LINEAR_EXACT")
    facts = describe_acquisition(exact)
    assert (facts["window_center"], facts["window_width"]) == ("1000.5", "401")


def test_a_sigmoid_window_is_applied(tmp_path: Path) -> None:
    dataset = _dataset(WindowCenter="1000", WindowWidth="1000", VOILUTFunction="SIGMOID")
    # 65535 / (1 + exp(-4 (x - 1000) / 1000))
    expected = [round(65535 / (1 + np.exp(-4 * (x - 1000) / 1000))) for x in (0, 1000, 2000, 4095)]
    assert _read(tmp_path, dataset) == [expected]
    assert describe_acquisition(dataset) == {"modality": "CR", "bits_stored": "16"}
    dataset.PhotometricInterpretation = "MONOCHROME1"
    assert _read(tmp_path, dataset) == [[65535 - grey for grey in expected]]


def test_voi_tables_are_applied(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], dtype=np.uint8)
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "OW", np.array([0, 10, 1000, 60000], dtype="<u2").tobytes())
    dataset = _dataset(stored, bits=8, VOILUTSequence=Sequence([table]))
    assert _read(tmp_path, dataset) == [[0, 10, 1000, 60000]]
    assert describe_acquisition(dataset)["bits_stored"] == "16"


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    stored = np.array([[[255, 0, 0], [90, 90, 90]]], dtype=np.uint8)
    dataset = _dataset(stored, bits=8, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dataset.PlanarConfiguration = 0
    assert _read(tmp_path, dataset) == [[76, 90]]


def test_acquisition_attributes_are_kept() -> None:
    facts = describe_acquisition(
        _dataset(
            Modality="DX",
            Manufacturer="Acme",
            ManufacturerModelName="A1",
            ViewPosition="PA",
            ImagerPixelSpacing=["0.2", "0.1"],
            LossyImageCompression="01",
            LossyImageCompressionRatio="10.5",
            LossyImageCompressionMethod="ISO_10918_1",
        )
    )
    assert facts == {
        "modality": "DX",
        "vendor": "Acme",
        "model": "A1",
        "view": "PA",
        "bits_stored": "12",
        "window": "none",
        "pixel_spacing_mm": "0.2\\0.1",
        "lossy_method": "ISO_10918_1",
        "lossy_ratio": "10.5",
    }


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"NumberOfFrames": "2"}, "several frames"),
        ({"BitsStored": 32}, "32 bits"),
        ({"HighBit": 15}, "HighBit"),
        ({"Rows": 65535, "Columns": 65535}, "too large"),
    ],
)
def test_images_that_cannot_be_used_say_why(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        describe_acquisition(_dataset(**attributes))


def test_a_file_without_pixels_is_refused() -> None:
    dataset = _dataset()
    del dataset.PixelData
    with pytest.raises(DataError, match="holds no pixels"):
        describe_acquisition(dataset)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    dataset = _dataset()
    path = tmp_path / "x.dcm"
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[:200], content[:-3]):
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            read_dicom_grey(path)


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", ["RG1_J2KI", "JPEG-LL", "MR2_UNCR", "JLSL_16_15_1_1F", "vlut_04", "OBXXXX1A"]
)
def test_a_client_sees_the_same_in_the_source_and_in_the_emulated_archive(tmp_path: Path, name: str) -> None:
    source = REAL / f"{name}.dcm"
    if not source.is_file():
        pytest.skip("the public DICOM files are not beside the repository")
    facts = describe_acquisition(dcmread(source))
    identity = derive_identity(patient_id="p", record_id=name, site="s")
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(
        encode_object(read_dicom_grey(source), identity=identity, acquisition=parse_acquisition(facts))
    )
    assert np.allclose(read_display_pixels(copy), read_display_pixels(source), atol=0.005)


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_files_are_read_or_refused() -> None:
    if not REAL.is_dir():
        pytest.skip("the public DICOM files are not beside the repository")
    read = 0
    for path in sorted(REAL.rglob("*.dcm")):
        try:
            grey = read_dicom_grey(path)
        except DataError:
            continue
        read += 1
        assert grey.ndim == 2
        assert grey.dtype in (np.uint8, np.uint16)
    assert read >= 25
