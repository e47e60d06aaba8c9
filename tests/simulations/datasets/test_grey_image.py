import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.grey_image import decode_grey, inspect_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
DEEP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000


def _encoded(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP"])
def test_8_bit_grey_is_exact(format_name: str) -> None:
    grey = decode_grey(_encoded(Image.fromarray(GREY), format_name))
    assert grey.dtype == np.uint8
    assert np.array_equal(grey, GREY)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_grey_is_exact(format_name: str) -> None:
    grey = decode_grey(_encoded(Image.fromarray(DEEP), format_name))
    assert grey.dtype == np.uint16
    assert np.array_equal(grey, DEEP)


def test_jpeg_is_close() -> None:
    flat = np.full((16, 16), 77, dtype=np.uint8)
    assert np.array_equal(decode_grey(_encoded(Image.fromarray(flat), "JPEG")), flat)


def test_colour_becomes_luminance() -> None:
    # BT.601: 0.299 R + 0.587 G + 0.114 B
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], dtype=np.uint8)
    assert decode_grey(_encoded(Image.fromarray(colour))).tolist() == [[76, 150, 29, 90]]


def test_palettes_are_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 200, 200, 10, 10, 10])
    image.putdata([0, 1])
    assert decode_grey(_encoded(image)).tolist() == [[200, 10]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_lie_on_black(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (100, 100, 100, 255))
    image.putpixel((1, 0), (255, 255, 255, 0))
    assert decode_grey(_encoded(image.convert(mode))).tolist() == [[100, 0]]


def test_black_and_white_is_grey() -> None:
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert decode_grey(_encoded(image)).tolist() == [[0, 255]]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn 90 degrees clockwise to show
    grey = decode_grey(_encoded(Image.fromarray(GREY), "PNG", exif=exif.tobytes()))
    assert np.array_equal(grey, np.rot90(GREY, -1))


@pytest.mark.parametrize(("pixels", "top"), [(GREY, 255), (DEEP, 65535)])
def test_tiffs_whose_zero_is_white_are_inverted(pixels: np.ndarray, top: int) -> None:
    # Tag 262, type SHORT, count 1: from 1 (zero is black) to 0, with the same stored values.
    entry = bytes.fromhex("0601 0300 01000000")
    content = _encoded(Image.fromarray(pixels), "TIFF").replace(entry + b"\1", entry + b"\0")
    assert np.array_equal(decode_grey(content), top - pixels)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "BMP"])
def test_truncated_files_are_found_without_decoding_them_all(format_name: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    content = _encoded(Image.fromarray(noise), format_name)
    assert inspect_image(content).format == format_name
    for keep in (len(content) // 2, len(content) * 9 // 10):
        with pytest.raises(DataError, match="damaged or truncated"):
            inspect_image(content[:keep])
        with pytest.raises(DataError):
            decode_grey(content[:keep])


def test_a_jpeg_with_surplus_bytes_at_its_end_is_fine() -> None:
    content = _encoded(Image.fromarray(GREY), "JPEG") + b"trailer of some camera" * 9
    assert inspect_image(content).format == "JPEG"


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"])
def test_other_files_are_refused(content: bytes) -> None:
    for read in (inspect_image, decode_grey):
        with pytest.raises(DataError):
            read(content)


def test_a_gif_is_refused_by_name_of_the_formats() -> None:
    with pytest.raises(DataError, match="not a PNG, JPEG, TIFF or BMP"):
        inspect_image(_encoded(Image.fromarray(GREY), "GIF"))


@pytest.mark.parametrize("limit", [5, 8])
def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    # 12 pixels: more than twice the limit is an error of Pillow, more than once its warning.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for read in (inspect_image, decode_grey):
        with pytest.raises(DataError, match="too large to be safe"):
            read(_encoded(Image.fromarray(GREY)))


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    content = _encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="several pages"):
        inspect_image(content)


@pytest.mark.parametrize("value", [-1, 70000])
def test_values_beyond_16_bits_are_refused(value: int) -> None:
    content = _encoded(Image.fromarray(np.array([[value, 5]], dtype=np.int32)), "TIFF")
    with pytest.raises(DataError, match="do not fit 16 bits"):
        decode_grey(content)


def test_floating_point_is_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        decode_grey(_encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))


SAMPLES = {name: _encoded(Image.fromarray(GREY), name) for name in ("PNG", "JPEG", "TIFF", "BMP")}


@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_decoded_or_refused(name: str, where: int, junk: bytes) -> None:
    content = bytearray(SAMPLES[name])
    where %= len(content)
    content[where : where + len(junk)] = junk
    for read in (inspect_image, decode_grey):
        try:
            read(bytes(content))
        except DataError:
            continue
