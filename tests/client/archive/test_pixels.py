"""Every pixel rule against values worked out by hand, and hostile files."""

from pathlib import Path

import numpy as np
import pytest
from dicom_factory import COMPRESSED, CR, DX_PROCESSING, LOSSLESS, NATIVE, gradient, write, write_frame, xray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless

from fedcad.client.archive.header import PixelLimits
from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.reasons import Reason, UnusableFile

WINDOW = {"WindowCenter": 24, "WindowWidth": 48, "VOILUTFunction": "LINEAR_EXACT"}
PUBLIC = Path(__file__).parents[4] / "shared" / "data" / "dicom_pydicom_data"


def read(folder: Path, dataset: Dataset, syntax: str = "explicit") -> np.ndarray:
    return read_display_pixels(write(folder / "image.dcm", dataset, syntax))


def refusal(path: Path, **kwargs: PixelLimits) -> Reason:
    with pytest.raises(UnusableFile) as caught:
        read_display_pixels(path, **kwargs)
    return caught.value.reason


def test_linear_window_follows_the_equation_of_the_standard(tmp_path):
    # PS3.3 C.11.2.1.2.1 with c = 2048, w = 4096: y = (x - 2047.5) / 4095 + 0.5, 0 at 0, 1 at 4095.
    pixels = np.array([[0, 1, 2048], [4094, 4095, 3000]], dtype=np.uint16)
    image = read(tmp_path, xray(pixels, bits_stored=12, WindowCenter=2048, WindowWidth=4096))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, pixels / 4095, atol=1e-7)


def test_linear_window_of_width_one_is_a_step(tmp_path):
    # x <= c - 0.5 is black, above is white: 9.5 lies between 9 and 10.
    image = read(tmp_path, xray(np.array([[8, 9, 10, 11]], np.uint16), WindowCenter=10, WindowWidth=1))
    assert image.tolist() == [[0, 0, 1, 1]]


def test_linear_exact_window(tmp_path):
    image = read(tmp_path, xray(np.array([[0, 12, 24, 48, 60]], np.uint16), **WINDOW))
    np.testing.assert_allclose(image, [[0, 0.25, 0.5, 1, 1]], atol=1e-7)


def test_sigmoid_window(tmp_path):
    dataset = xray(np.array([[0, 24, 48]], np.uint16), **{**WINDOW, "VOILUTFunction": "SIGMOID"})
    # 1 / (1 + exp(-4 (x - 24) / 48)): exponents +2, 0, -2.
    expected = [[1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2))]]
    np.testing.assert_allclose(read(tmp_path, dataset), expected, atol=1e-6)


def test_of_several_windows_the_first_counts(tmp_path):
    several = {"WindowCenter": [24, 500], "WindowWidth": [48, 1000], "VOILUTFunction": "LINEAR_EXACT"}
    assert read(tmp_path, xray(np.array([[12, 36]], np.uint16), **several)).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ],
)
def test_inverse_polarity_is_undone_once(tmp_path, elements):
    image = read(tmp_path, xray(np.array([[0, 12, 48]], np.uint16), **WINDOW, **elements))
    np.testing.assert_allclose(image, [[1, 0.75, 0]], atol=1e-7)


def test_identity_shape_changes_nothing(tmp_path):
    image = read(
        tmp_path, xray(np.array([[0, 12, 48]], np.uint16), **WINDOW, PresentationLUTShape="IDENTITY")
    )
    np.testing.assert_allclose(image, [[0, 0.25, 1]], atol=1e-7)


def test_rescale_comes_before_the_window_also_with_a_negative_slope(tmp_path):
    # 2 x - 10 for x = 5, 11, 29 is 0, 12, 48; with slope -2 and intercept 58 it is 48, 36, 0.
    pixels = np.array([[5, 11, 29]], np.uint16)
    up = xray(pixels, **WINDOW, RescaleSlope=2, RescaleIntercept=-10)
    np.testing.assert_allclose(read(tmp_path, up), [[0, 0.25, 1]], atol=1e-6)
    down = xray(pixels, **WINDOW, RescaleSlope=-2, RescaleIntercept=58)
    np.testing.assert_allclose(read(tmp_path, down), [[1, 0.75, 0]], atol=1e-6)


def lut(
    first: int, values: list[int], bits: int, *, keyword: str = "VOILUTSequence", packed: bool = False
) -> dict:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values), first, bits])
    if packed:
        item.add_new(0x00283006, "OW", bytes(values) + b"\0" * (len(values) % 2))
    else:
        item.add_new(0x00283006, "US", values)
    if keyword == "ModalityLUTSequence":
        item.ModalityLUTType = "US"
    return {keyword: [item]}


def test_voi_lut_wins_over_a_window_and_clamps_at_its_ends(tmp_path):
    elements = lut(10, [0, 100, 400, 1023], 10)
    image = read(tmp_path, xray(np.array([[0, 10, 11, 12, 13, 999]], np.uint16), **elements, **WINDOW))
    np.testing.assert_allclose(image, np.array([[0, 0, 100, 400, 1023, 1023]]) / 1023, atol=1e-6)


def test_voi_lut_of_packed_bytes(tmp_path):
    image = read(tmp_path, xray(np.array([[0, 1, 2]], np.uint16), **lut(0, [0, 51, 255], 8, packed=True)))
    np.testing.assert_allclose(image, [[0, 0.2, 1]], atol=1e-6)


def test_voi_lut_with_a_negative_first_input(tmp_path):
    elements = lut(-2, [0, 50, 100, 255], 8)
    image = read(tmp_path, xray(np.array([[-3, -2, -1, 0, 1, 9]], np.int16), **elements))
    np.testing.assert_allclose(image, np.array([[0, 0, 50, 100, 255, 255]]) / 255, atol=1e-6)


def test_modality_lut_comes_before_the_window(tmp_path):
    elements = lut(0, [48, 36, 0], 16, keyword="ModalityLUTSequence")
    image = read(tmp_path, xray(np.array([[0, 1, 2, 7]], np.uint16), **elements, **WINDOW))
    np.testing.assert_allclose(image, [[1, 0.75, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": 0.5},
        {"WindowCenter": 5, "WindowWidth": 10, "VOILUTFunction": "MAGIC"},
        lut(0, [0, 300], 8),
        lut(0, [0, 1], 40),
    ],
)
def test_invalid_transformations_are_refused_not_repaired(tmp_path, elements):
    assert refusal(write(tmp_path / "x", xray(gradient(), **elements))) is Reason.INVALID_TRANSFORM


def test_without_a_window_robust_percentiles_of_the_image_are_used(tmp_path):
    pixels = np.arange(1000, dtype=np.uint16).reshape(25, 40)
    pixels[0, 0] = 60000  # one hot pixel must not darken the image
    image = read(tmp_path, xray(pixels))
    # Sorted values are 1..999, 60000: the 5th is 5 and the 995th is 995.
    np.testing.assert_allclose(image.ravel()[1:], np.clip((np.arange(1, 1000) - 5) / 990, 0, 1), atol=1e-6)
    assert image[0, 0] == 1


@pytest.mark.parametrize(
    "elements", [{"PresentationIntentType": "FOR PROCESSING"}, {"SOPClassUID": DX_PROCESSING}]
)
def test_a_raw_image_ignores_windows_and_luts(tmp_path, elements):
    pixels = np.arange(1000, dtype=np.uint16).reshape(25, 40)
    image = read(tmp_path, xray(pixels, **elements, WindowCenter=1, WindowWidth=2))
    np.testing.assert_allclose(image.ravel(), np.clip((np.arange(1000) - 4) / 990, 0, 1), atol=1e-6)


def test_padding_is_black_whatever_the_polarity_and_outside_the_percentiles(tmp_path):
    pixels = np.full((40, 40), 65535, dtype=np.uint16)
    pixels[10:35, :] = np.arange(1000).reshape(25, 40)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 65535}
    image = read(tmp_path, xray(pixels, **elements))
    assert (image[:10] == 0).all() and (image[35:] == 0).all()
    np.testing.assert_allclose(
        image[10:35].ravel(), 1 - np.clip((np.arange(1000) - 4) / 990, 0, 1), atol=1e-6
    )


def test_padding_range_in_either_order_and_signed(tmp_path):
    pixels = np.array([[-2000, -1500, -1000, 0, 24]], np.int16)
    window = {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}
    for value, limit in ((-2000, -1500), (-1500, -2000)):
        dataset = xray(pixels, **window)
        dataset.add_new(0x00280120, "SS", value)
        dataset.add_new(0x00280121, "SS", limit)
        assert read(tmp_path, dataset).tolist() == [[0, 0, 1, 1, 0.5]]


def test_padding_written_with_the_wrong_signedness(tmp_path):
    dataset = xray(np.array([[-2000, 24]], np.int16), **WINDOW, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new(0x00280120, "US", 65536 - 2000)
    assert read(tmp_path, dataset).tolist() == [[0, 0.5]]


def test_only_padding_or_a_constant_image_without_window_is_refused(tmp_path):
    flat = np.full((4, 4), 7, np.uint16)
    assert refusal(write(tmp_path / "a", xray(flat, PixelPaddingValue=7))) is Reason.EMPTY_IMAGE
    assert refusal(write(tmp_path / "b", xray(flat))) is Reason.EMPTY_IMAGE


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", NATIVE)
def test_bit_depths_signs_and_byte_orders(tmp_path, bits, signed, syntax):
    lowest = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(lowest, lowest + 2**bits - 1, 15).astype(int).reshape(3, 5)
    pixels = values.astype(np.int16 if signed else np.uint16)
    window = {"WindowCenter": lowest + 2 ** (bits - 1), "WindowWidth": 2**bits}
    image = read(tmp_path, xray(pixels, bits_stored=bits, **window), syntax)
    np.testing.assert_allclose(image, (values - lowest) / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("syntax", NATIVE)
def test_bytes_with_an_odd_number_of_pixels(tmp_path, syntax):
    pixels = gradient(3, 5, dtype=np.uint8)
    image = read(
        tmp_path, xray(pixels, WindowCenter=8, WindowWidth=16, VOILUTFunction="LINEAR_EXACT"), syntax
    )
    np.testing.assert_allclose(image, pixels / 16, atol=1e-7)


@pytest.mark.parametrize("syntax", ["explicit", "rle"])
def test_overlay_bits_and_a_high_stored_position_are_cleared(tmp_path, syntax):
    values = gradient(4, 4)
    low = (values | 0xF000).astype(np.uint16)  # an old-style overlay above 12 bits
    high = (values << 4 | 0x000F).astype(np.uint16)  # stored in bits 4 to 15
    window = {"WindowCenter": 8, "WindowWidth": 16, "VOILUTFunction": "LINEAR_EXACT"}
    expected = values / 16
    np.testing.assert_allclose(
        read(tmp_path, xray(low, bits_stored=12, **window), syntax), expected, atol=1e-7
    )
    shifted = xray(high, bits_stored=12, **window, HighBit=15)
    np.testing.assert_allclose(read(tmp_path, shifted, syntax), expected, atol=1e-7)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression_gives_what_uncompressed_gives(tmp_path, syntax, bits, signed):
    if syntax == "jpeg-lossless" and signed:
        pytest.skip("GDCM does not encode signed JPEG Lossless")
    rng = np.random.default_rng(bits)
    lowest = -(2 ** (bits - 1)) if signed else 0
    kind = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    pixels = rng.integers(lowest, lowest + 2**bits, (66, 70)).astype(kind)
    window = {"WindowCenter": lowest + 2 ** (bits - 1), "WindowWidth": 2**bits}
    plain = read(tmp_path, xray(pixels, bits_stored=bits, **window))
    packed = read(tmp_path, xray(pixels, bits_stored=bits, **window), syntax)
    np.testing.assert_array_equal(packed, plain)


def test_jpeg_baseline_is_close(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    plain = read(tmp_path, xray(smooth, **window))
    assert np.abs(read(tmp_path, xray(smooth, **window), "jpeg-baseline") - plain).max() < 4 / 255


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian", "rle", "jpeg2000", "jpeg-ls"])
def test_colour_becomes_luma(tmp_path, syntax):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 0, 0] = pixels[:, 1, 1] = pixels[:, 2, 2] = pixels[:, 3] = 255
    image = read(tmp_path, xray(pixels), syntax)
    np.testing.assert_allclose(image[:, :5], np.tile([0.299, 0.587, 0.114, 1, 0], (64, 1)), atol=1e-6)


def test_colour_by_plane(tmp_path):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 0, 0] = pixels[:, 1, 1] = pixels[:, 2, 2] = 255
    dataset = xray(pixels, PlanarConfiguration=1)
    dataset.PixelData = np.moveaxis(pixels, 2, 0).tobytes()
    np.testing.assert_allclose(read(tmp_path, dataset), np.tile([0.299, 0.587, 0.114, 0], (2, 1)), atol=1e-6)


def test_ybr_full_keeps_its_luma(tmp_path):
    pixels = np.full((2, 4, 3), 128, np.uint8)
    pixels[..., 0] = [[0, 50, 100, 200]] * 2
    image = read(tmp_path, xray(pixels, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(image, pixels[..., 0] / 255, atol=1.01 / 255)


def test_palette_colour(tmp_path):
    dataset = xray(np.array([[0, 1, 2, 3]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for number, values in enumerate(([255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255])):
        dataset.add_new(0x00281101 + number, "US", [4, 0, 8])
        dataset.add_new(0x00281201 + number, "OW", bytes(values))
    np.testing.assert_allclose(read(tmp_path, dataset), [[0.299, 0.587, 0.114, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelAspectRatio": ["2", "1"]}, (16, 6)),
        ({"PixelAspectRatio": ["1", "2"]}, (8, 12)),
        ({"ImagerPixelSpacing": [0.3, 0.1]}, (24, 6)),
        ({"PixelSpacing": [0, 0]}, (8, 6)),
        ({"PixelSpacing": [0.143, 0.143]}, (8, 6)),
    ],
)
def test_oblong_pixels_become_square(tmp_path, elements, shape):
    image = read(tmp_path, xray(gradient(), **WINDOW, **elements))
    assert image.shape == shape
    assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize(
    "elements", [{"PixelAspectRatio": ["100", "1"]}, {"PixelSpacing": [-1, 1]}, {"PixelSpacing": [0, 1]}]
)
def test_implausible_pixels_are_refused(tmp_path, elements):
    assert refusal(write(tmp_path / "x", xray(gradient(), **elements))) is Reason.IMPLAUSIBLE_ASPECT


def test_a_pixel_bomb_is_refused_before_anything_is_allocated(tmp_path):
    bomb = xray(gradient(), Rows=65535, Columns=65535)
    assert refusal(write(tmp_path / "x", bomb)) is Reason.ABSURD_DIMENSIONS
    frames = xray(gradient(), NumberOfFrames=2**31 - 1)
    assert refusal(write(tmp_path / "y", frames)) is Reason.ABSURD_DIMENSIONS
    assert (
        refusal(write(tmp_path / "z", xray(gradient())), limits=PixelLimits(max_samples=47))
        is Reason.ABSURD_DIMENSIONS
    )


@pytest.mark.parametrize("syntax", ["jpeg-ls", "jpeg2000", "jpeg-lossless", "jpeg-baseline"])
def test_a_codestream_larger_than_the_attributes_is_refused(tmp_path, syntax):
    path = write(tmp_path / "x", xray(gradient(32, 32, dtype=np.uint8)), syntax)
    content = path.read_bytes()
    rows = content.replace(b"\x28\x00\x10\x00US\x02\x00\x20\x00", b"\x28\x00\x10\x00US\x02\x00\x10\x00")
    assert rows != content
    path.write_bytes(rows)
    assert refusal(path) is Reason.CODESTREAM_MISMATCH


def test_a_second_frame_is_refused(tmp_path):
    dataset = xray(gradient(), NumberOfFrames=2)
    dataset.PixelData = dataset.PixelData * 2
    assert refusal(write(tmp_path / "x", dataset)) is Reason.MULTI_FRAME


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian", *COMPRESSED])
def test_a_file_cut_anywhere_is_an_archive_error_or_an_image(tmp_path, syntax):
    path = write(tmp_path / "x", xray(gradient(32, 32, dtype=np.uint8), **WINDOW), syntax)
    content = path.read_bytes()
    # CharLS takes 2 s to throw in a process that has loaded torch.
    cuts = 3 if syntax == "jpeg-ls" else 60
    for length in range(0, len(content), max(1, len(content) // cuts)):
        path.write_bytes(content[:length])
        try:
            image = read_display_pixels(path)
        except UnusableFile as error:
            assert "Secret" not in str(error) and "P1" not in str(error)
        else:
            # Decoders may fill up a frame that is cut off; an uncompressed one is never incomplete.
            assert syntax in COMPRESSED and image.shape == (32, 32)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_damage_never_escapes_as_another_error(tmp_path, data):
    syntax = data.draw(st.sampled_from(["explicit", "implicit", "big-endian", "rle", "jpeg2000"]))
    path = tmp_path / f"{syntax}.dcm"
    if not path.exists():
        write(path, xray(gradient(32, 32), **lut(0, [0, 1, 5], 8)), syntax)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(content)
    try:
        image = read_display_pixels(damaged)
    except UnusableFile:
        return
    assert image.ndim == 2 and image.dtype == np.float32 and np.isfinite(image).all()
    assert image.min() >= 0 and image.max() <= 1


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), dicom=st.booleans())
def test_random_bytes_are_refused(tmp_path, content, dicom):
    path = tmp_path / "random"
    path.write_bytes(b"\0" * 128 + b"DICM" + content if dicom else content)
    assert refusal(path) in (Reason.NOT_DICOM, Reason.BROKEN_HEADER, Reason.UNSUPPORTED_TRANSFER_SYNTAX)


def test_a_link_and_a_folder_are_not_read(tmp_path):
    path = write(tmp_path / "x", xray(gradient(), **WINDOW))
    (tmp_path / "link").symlink_to(path)
    assert refusal(tmp_path / "link") is Reason.UNREADABLE
    assert refusal(tmp_path) is Reason.UNREADABLE
    assert refusal(tmp_path / "absent") is Reason.UNREADABLE


def test_the_source_is_not_changed(tmp_path):
    path = write(tmp_path / "x", xray(gradient(), SOPClassUID=CR, **WINDOW))
    path.chmod(0o400)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    read_display_pixels(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_plain_jpeg2000_under_an_htj2k_syntax_is_decoded_by_the_same_library(tmp_path):
    pixels = gradient(32, 32)
    frame = encode_array(pixels, bits_stored=16, photometric_interpretation=2)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    plain = read_display_pixels(write_frame(tmp_path / "a", xray(pixels, **window), frame, JPEG2000Lossless))
    high = read_display_pixels(write_frame(tmp_path / "b", xray(pixels, **window), frame, HTJ2KLossless))
    np.testing.assert_array_equal(plain, high)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("compressed", "plain", "tolerance"),
    [
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm", 0),
        ("MR2_J2KI.dcm", "MR2_UNCR.dcm", 0.1),
        ("US1_J2KR.dcm", "US1_UNCR.dcm", 0),
        ("OBXXXX1A_rle.dcm", "OBXXXX1A.dcm", 0),
        ("color-px.dcm", "color-pl.dcm", 0),
        ("SC_rgb_expb.dcm", "SC_rgb.dcm", 0),
        ("SC_rgb_expb_16bit.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_ybr_full_uncompressed.dcm", "SC_rgb.dcm", 0.01),
        ("SC_rgb_dcmtk_ebcr_dcmd.dcm", "SC_rgb.dcm", 0.02),
        ("HTJ2K_08_RGB.dcm", "HTJ2KLossless_08_RGB.dcm", 0.1),
    ],
)
def test_public_files_of_other_writers_agree(compressed, plain, tolerance):
    if not PUBLIC.is_dir():
        pytest.skip(f"{PUBLIC} is absent")
    difference = np.abs(read_display_pixels(PUBLIC / compressed) - read_display_pixels(PUBLIC / plain))
    assert difference.max() <= tolerance


@pytest.mark.real_data
def test_a_real_computed_radiograph_is_bright_where_bone_is():
    if not PUBLIC.is_dir():
        pytest.skip(f"{PUBLIC} is absent")
    image = read_display_pixels(PUBLIC / "RG1_J2KI.dcm")
    assert image.shape == (1955, 1841) and 0.05 < image.mean() < 0.95
