"""How the pixels of one file lie in its bytes: DICOM PS3.3 C.7.6.3 and PS3.5 section 8, checked."""

import os
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pydicom.dataset import Dataset

from fedcad.client.archive.header import IMPLICIT_VR, NATIVE_SYNTAXES, PixelLimits, integer_of, text_of
from fedcad.client.archive.reasons import Reason, UnusableFile

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"

LAYOUT_TAGS = (
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""Elements that :func:`read_layout` needs."""

_REQUIRED = tuple(tag for tag in LAYOUT_TAGS if tag not in ("NumberOfFrames", "PlanarConfiguration"))
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """Shape and encoding of one frame.

    Attributes:
        rows: Rows.
        columns: Columns.
        samples: 1 (grey, palette) or 3 (colour).
        bits_allocated: 8 or 16.
        bits_stored: 6 to 16, as PS3.3 C.8.11.3 allows for digital X-ray.
        high_bit: Position of the highest stored bit.
        signed: Whether values are two's complement.
        photometric: Photometric Interpretation.
        planar: Whether colour planes follow each other.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame, without the padding byte; YBR_FULL_422 shares chroma in pairs."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8


@dataclass(frozen=True)
class PixelElement:
    """Where the Pixel Data value lies in its file.

    Attributes:
        offset: Position of its first byte.
        length: Bytes; for compressed data up to the end of the file.
        vr: Value representation, OB or OW.
    """

    offset: int
    length: int
    vr: str


def read_layout(dataset: Dataset, limits: PixelLimits) -> PixelLayout:
    """Read and check the Image Pixel attributes.

    Raises:
        UnusableFile: One is missing, contradictory, unsupported or above a limit.
    """
    missing = [tag for tag in _REQUIRED if not text_of(dataset, tag)]
    if missing:
        raise UnusableFile(Reason.MISSING_PIXEL_ATTRIBUTES, f"the file lacks {', '.join(missing)}")
    numbers = {tag: _number(dataset, tag) for tag in _REQUIRED if tag != "PhotometricInterpretation"}
    frames = integer_of(dataset, "NumberOfFrames")
    layout = PixelLayout(
        rows=numbers["Rows"],
        columns=numbers["Columns"],
        samples=numbers["SamplesPerPixel"],
        bits_allocated=numbers["BitsAllocated"],
        bits_stored=numbers["BitsStored"],
        high_bit=numbers["HighBit"],
        signed=numbers["PixelRepresentation"] == 1,
        photometric=text_of(dataset, "PhotometricInterpretation"),
        planar=integer_of(dataset, "PlanarConfiguration") == 1,
    )
    _check_size(layout, 1 if frames is None else frames, limits)
    _check_encoding(layout)
    return layout


def _number(dataset: Dataset, tag: str) -> int:
    """Return a required number."""
    value = integer_of(dataset, tag)
    if value is None:
        raise UnusableFile(Reason.MISSING_PIXEL_ATTRIBUTES, f"{tag} is not a number")
    return value


def _check_size(layout: PixelLayout, frames: int, limits: PixelLimits) -> None:
    """Refuse sizes that no X-ray has, before anything is allocated."""
    rows, columns = layout.rows, layout.columns
    samples = rows * columns * max(frames, 1) * layout.samples
    largest = max(rows, columns)
    if min(rows, columns) < 1 or largest > limits.max_side or samples > limits.max_samples:
        raise UnusableFile(
            Reason.ABSURD_DIMENSIONS,
            f"{rows} x {columns} pixels, {frames} frames, {layout.samples} samples; "
            f"at most {limits.max_side} a side and {limits.max_samples} in all are decoded",
        )
    if frames != 1:
        raise UnusableFile(Reason.MULTI_FRAME, f"the file has {frames} frames; one is expected")


def _check_encoding(layout: PixelLayout) -> None:
    """Refuse bit depths and colour models that are not decoded."""
    if layout.bits_allocated not in (8, 16) or not 6 <= layout.bits_stored <= layout.bits_allocated:
        raise UnusableFile(
            Reason.UNSUPPORTED_BITS,
            f"{layout.bits_stored} bits stored in {layout.bits_allocated}; 6 to 16 in 8 or 16 are decoded",
        )
    if not layout.bits_stored - 1 <= layout.high_bit < layout.bits_allocated:
        raise UnusableFile(
            Reason.UNSUPPORTED_BITS, f"HighBit {layout.high_bit} contradicts {layout.bits_stored} bits stored"
        )
    expected = 3 if layout.photometric in COLOUR else 1
    known = (*GREY, *COLOUR, PALETTE)
    if layout.photometric not in known or layout.samples != expected:
        named = layout.photometric if layout.photometric in known else "an unknown photometric interpretation"
        raise UnusableFile(
            Reason.UNSUPPORTED_COLOUR, f"{layout.samples} samples per pixel with {named} are not decoded"
        )


def find_pixels(stream: BinaryIO, layout: PixelLayout, transfer_syntax: str) -> PixelElement:
    """Parse the head of the Pixel Data element at the stream's position and check its length.

    Args:
        stream: As left by :func:`~fedcad.client.archive.header.read_header`.
        layout: What the frame must hold.
        transfer_syntax: UID; decides byte order and whether the head names its value representation.

    Raises:
        UnusableFile: There is no Pixel Data element, or it is shorter than one frame.
    """
    order: Literal["big", "little"] = "big" if NATIVE_SYNTAXES.get(transfer_syntax) == ">" else "little"
    implicit = transfer_syntax == IMPLICIT_VR
    head = stream.read(8 if implicit else 12)
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    if (group, element) != (0x7FE0, 0x0010) or len(head) < (8 if implicit else 12):
        raise UnusableFile(Reason.NO_PIXELS, "the file ends, or differs from DICOM, before its pixels")
    declared = int.from_bytes(head[-4:], order)
    offset = stream.tell()
    vr = "OB" if not implicit and head[4:6] == b"OB" else "OW"
    remaining = os.fstat(stream.fileno()).st_size - offset
    if transfer_syntax not in NATIVE_SYNTAXES:
        if declared != _UNDEFINED_LENGTH or remaining < 16:
            raise UnusableFile(Reason.TRUNCATED, "the compressed pixels are not encapsulated or are cut off")
        return PixelElement(offset, remaining, vr)
    if min(declared, remaining) < layout.frame_bytes:
        raise UnusableFile(
            Reason.TRUNCATED,
            f"the pixels have {min(declared, remaining)} bytes; the attributes need {layout.frame_bytes}",
        )
    return PixelElement(offset, layout.frame_bytes, vr)
