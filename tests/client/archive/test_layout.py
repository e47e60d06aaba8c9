"""Layouts: what is accepted, and where the pixels lie."""

import pytest
from dicom_factory import NATIVE, gradient, write, xray

from fedcad.client.archive.header import PixelLimits, read_header
from fedcad.client.archive.layout import LAYOUT_TAGS, PixelLayout, find_pixels, read_layout
from fedcad.client.archive.reasons import Reason, UnusableFile


def locate(path, limits=PixelLimits()):  # noqa: B008 - frozen
    with path.open("rb") as stream:
        header = read_header(stream, list(LAYOUT_TAGS))
        layout = read_layout(header.dataset, limits)
        return layout, find_pixels(stream, layout, header.transfer_syntax)


def test_every_attribute(tmp_path):
    layout, _ = locate(write(tmp_path / "x", xray(gradient(dtype="i2"), bits_stored=12)))
    assert layout == PixelLayout(
        rows=8,
        columns=6,
        samples=1,
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        signed=True,
        photometric="MONOCHROME2",
        planar=False,
    )
    assert layout.frame_bytes == 96


@pytest.mark.parametrize("syntax", NATIVE)
def test_the_element_is_where_the_pixels_are(tmp_path, syntax):
    path = write(tmp_path / "x", xray(gradient()), syntax)
    _, element = locate(path)
    assert (element.offset, element.length) == (path.stat().st_size - 96, 96)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": None}, Reason.MISSING_PIXEL_ATTRIBUTES),
        ({"Rows": 0}, Reason.ABSURD_DIMENSIONS),
        ({"Columns": 40000}, Reason.ABSURD_DIMENSIONS),
        ({"NumberOfFrames": 0}, Reason.MULTI_FRAME),
        ({"BitsStored": 5, "HighBit": 4}, Reason.UNSUPPORTED_BITS),
        ({"BitsStored": 17}, Reason.UNSUPPORTED_BITS),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED_BITS),
        ({"HighBit": 16}, Reason.UNSUPPORTED_BITS),
        ({"SamplesPerPixel": 3}, Reason.UNSUPPORTED_COLOUR),
        ({"Rows": 9}, Reason.TRUNCATED),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, elements, reason):
    with pytest.raises(UnusableFile) as caught:
        locate(write(tmp_path / "x", xray(gradient(), **elements)))
    assert caught.value.reason is reason
