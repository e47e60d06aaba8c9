"""The header of one DICOM file: parsed without its pixels, checked against limits before anything is decoded.

Why: an archive holds truncated, foreign and hostile files. Everything that decides how much memory decoding
takes is checked here first, and every failure becomes one named reason.
"""

import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from fedcad.client.archive.reasons import Reason, UnusableFile

# pydicom logs values that it finds odd; at a hospital these may be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PARSE_FAILURES = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    NotImplementedError,
    ArithmeticError,
    RuntimeError,  # includes RecursionError: sequences nested without end
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    OSError,
)
"""What pydicom and its decoders raise on damaged input."""

IMPLICIT_VR = "1.2.840.10008.1.2"
"""Transfer syntax Implicit VR Little Endian."""

NATIVE_SYNTAXES = {
    IMPLICIT_VR: "<",
    "1.2.840.10008.1.2.1": "<",  # Explicit VR Little Endian
    "1.2.840.10008.1.2.2": ">",  # Explicit VR Big Endian (retired, still in archives)
}
"""Uncompressed transfer syntaxes and their byte order."""

COMPRESSED_SYNTAXES = {
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
"""Compressed transfer syntaxes that are decoded. The deflated ones are not: they inflate before any check."""

_PREAMBLE_BYTES = 132
_MAX_META_ELEMENTS = 64
_FIRST_PIXEL_TAG = 0x7FE00008
_PLAIN_TEXT = frozenset({"CS", "DS", "IS", "UI"})
_LONG_FORM = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")


@dataclass(frozen=True, kw_only=True)
class PixelLimits:
    """What one file may ask for, checked before decoding.

    Attributes:
        max_samples: Rows × columns × frames × samples per pixel; by default 8 full-field detectors.
        max_side: Rows or columns.
        max_file_bytes: Size of the file.
        max_aspect: Ratio of a pixel's height and width, either way.
    """

    max_samples: int = 128 * 2**20
    max_side: int = 32768
    max_file_bytes: int = 2**30
    max_aspect: float = 4.0


DEFAULT_LIMITS = PixelLimits()


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        dataset: The elements that were asked for.
        transfer_syntax: Transfer Syntax UID.
    """

    dataset: Dataset
    transfer_syntax: str

    @property
    def byte_order(self) -> str:
        """``<`` or ``>``."""
        return NATIVE_SYNTAXES.get(self.transfer_syntax, "<")


def read_header(stream: BinaryIO, tags: list[str], *, limits: PixelLimits = DEFAULT_LIMITS) -> Header:
    """Parse the named elements and leave the stream at the Pixel Data element (or the end of the file).

    Args:
        stream: A file opened for reading, at its start.
        tags: Keywords of the elements to keep; everything else is skipped.
        limits: The file's size is checked against these.

    Raises:
        UnusableFile: The file is too large, not DICOM, broken or of an unsupported transfer syntax.
    """
    size = os.fstat(stream.fileno()).st_size
    if size > limits.max_file_bytes:
        raise UnusableFile(
            Reason.TOO_LARGE_FILE, f"the file has {size} bytes; at most {limits.max_file_bytes} are read"
        )
    syntax = _read_file_meta(stream)
    _check_transfer_syntax(syntax)
    try:
        with quiet_parser():
            dataset = read_dataset(
                stream,
                is_implicit_VR=syntax == IMPLICIT_VR,
                is_little_endian=NATIVE_SYNTAXES.get(syntax, "<") == "<",
                stop_when=_is_past_header,
                specific_tags=[_tag(keyword) for keyword in ("SpecificCharacterSet", *tags)],
            )
    except PARSE_FAILURES as error:
        raise UnusableFile(
            Reason.BROKEN_HEADER, f"the header cannot be parsed ({type(error).__name__})"
        ) from error
    return Header(dataset, syntax)


@cache
def _tag(keyword: str) -> BaseTag:
    """Return the tag of a keyword."""
    return Tag(keyword)


def _is_past_header(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    """Whether an element lies at or behind the pixels (also float pixels, which are not read)."""
    return int(tag) >= _FIRST_PIXEL_TAG


@contextmanager
def quiet_parser() -> Iterator[None]:
    """Silence pydicom's warnings: they may quote attribute values, thus say something about a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_file_meta(stream: BinaryIO) -> str:
    """Return the transfer syntax and leave the stream behind the file meta information.

    DICOM PS3.10 section 7.1; always Explicit VR Little Endian. Read by hand because pydicom would inflate a
    deflated file while parsing it.
    """
    preamble = stream.read(_PREAMBLE_BYTES)
    if len(preamble) < _PREAMBLE_BYTES or preamble[128:] != b"DICM":
        raise UnusableFile(Reason.NOT_DICOM, "the file does not start as a DICOM file (preamble and DICM)")
    syntax = ""
    for _ in range(_MAX_META_ELEMENTS):
        head = stream.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            stream.seek(-len(head), os.SEEK_CUR)
            break
        length = int.from_bytes(head[6:8], "little")
        if head[4:6] in _LONG_FORM:
            length = int.from_bytes(stream.read(4), "little")
        if head[2:4] == b"\x10\x00" and length <= 64:
            syntax = stream.read(length).rstrip(b"\0 ").decode("ascii", "replace")
        else:
            stream.seek(length, os.SEEK_CUR)
    if not syntax:
        raise UnusableFile(Reason.BROKEN_HEADER, "the file meta information names no transfer syntax")
    return syntax


def _check_transfer_syntax(syntax: str) -> None:
    """Refuse what cannot be decoded, without echoing an odd value."""
    if syntax in NATIVE_SYNTAXES or syntax in COMPRESSED_SYNTAXES:
        return
    named = syntax if syntax.replace(".", "").isdigit() else "an invalid UID"
    raise UnusableFile(
        Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"the transfer syntax is {named}, which is not decoded here"
    )


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an element (the first value of several) as stripped text; empty where absent or unreadable."""
    tag = _tag(keyword)
    if tag not in dataset:
        return ""
    try:
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            vr = element.VR or dictionary_VR(tag)
            # Most of reading a header is converting values; these need no more than their bytes.
            if vr in _PLAIN_TEXT:
                return element.value.split(b"\\", 1)[0].decode("ascii", "replace").strip(" \0")
            if vr == "US" and len(element.value) >= 2:
                return str(int.from_bytes(element.value[:2], "little" if element.is_little_endian else "big"))
        return _converted_text(dataset, tag)
    except PARSE_FAILURES:
        return ""


def _converted_text(dataset: Dataset, tag: BaseTag) -> str:
    """Return an element's text as pydicom converts it, with the file's character set."""
    with quiet_parser():
        value = dataset[tag].value
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__len__"):
        value = value[0] if len(value) else ""
    return str(value).strip(" \0")


def numbers_of(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return every value of a decimal or integer string; none where absent, NaN where one is no number."""
    tag = _tag(keyword)
    if tag not in dataset:
        return ()
    element = dataset.get_item(tag)
    raw = element.value if isinstance(element, RawDataElement) else None
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else ""
    try:
        return tuple(float(part) for part in text.split("\\")) if text.strip(" \0") else ()
    except ValueError:
        return (float("nan"),)


def first_item_of(dataset: Dataset, keyword: str) -> Dataset | None:
    """Return the first item of a sequence; None where it is absent or empty.

    Raises:
        UnusableFile: The sequence cannot be parsed.
    """
    if _tag(keyword) not in dataset:
        return None
    try:
        with quiet_parser():
            items = dataset[_tag(keyword)].value
            return items[0] if items else None
    except PARSE_FAILURES as error:
        raise UnusableFile(Reason.BROKEN_HEADER, f"the {keyword} cannot be parsed") from error


def integer_of(dataset: Dataset, keyword: str) -> int | None:
    """Return an element as an integer; None where it is absent or not one number."""
    text = text_of(dataset, keyword)
    try:
        return int(text)
    except ValueError:
        return None
