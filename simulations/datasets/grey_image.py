"""Grey values of an image file (PNG, JPEG, TIFF, BMP), whatever its bit depth and colours."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.interface import Pixels

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_WHITE_IS_ZERO = 0  # TIFF 6.0, tag 262 PhotometricInterpretation
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's decoders raise on damaged input, as seen with truncated and bit-flipped files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True)
class ImageFacts:
    """What an image file says about itself.

    Attributes:
        format: PNG, JPEG, TIFF or BMP.
        rows: Height in pixels, before any EXIF orientation.
        columns: Width in pixels, before any EXIF orientation.
        bytes_per_pixel: Size of one uncompressed pixel.
    """

    format: str
    rows: int
    columns: int
    bytes_per_pixel: int


def inspect_image(content: bytes) -> ImageFacts:
    """Check an image file as far as that is cheap: format, size, and whether its end is there.

    PNG: the checksums of all chunks; JPEG: the end marker; anything else is decoded. Damage that only
    decoding finds is reported by :func:`decode_grey`.

    Raises:
        DataError: Not an image of a known format, damaged, truncated, too large or of several pages.
    """
    with _opened(content) as image:
        facts = ImageFacts(_plain_format(image), image.height, image.width, _bytes_per_pixel(image))
        if facts.format == "PNG":
            image.verify()
        elif not (facts.format == "JPEG" and content[-64:].rstrip(b"\0\r\n ").endswith(b"\xff\xd9")):
            image.load()
    return facts


def decode_grey(content: bytes) -> Pixels:
    """Decode an image file to grey values.

    Colour becomes luminance (ITU-R BT.601), palettes are looked up, transparent pixels lie on black, EXIF
    orientation is applied, and TIFFs whose zero is white are inverted. 16-bit colour keeps its upper 8 bits,
    because Pillow offers no more.

    Returns:
        Shape (rows, columns), uint8 or uint16, larger is brighter.

    Raises:
        DataError: Not an image of a known format, damaged, truncated, too large, of several pages, or
            with values that do not fit 16 bits.
    """
    with _opened(content) as image:
        is_inverted = _is_inverted_16_bit(image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _DEEP_MODES:
            return _deep_grey(np.asarray(upright), is_inverted=is_inverted)
        return _shallow_grey(upright)


def read_grey(path: Path) -> Pixels:
    """Read and decode an image file; see :func:`decode_grey`.

    Raises:
        DataError: The content is no usable image.
        OSError: The file cannot be read (gone, no permission, failing disk).
    """
    return decode_grey(path.read_bytes())


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Pillow's other warnings are about damage that it could read past.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if getattr(image, "n_frames", 1) > 1 and image.format == "TIFF":
                    raise DataError("the file holds several pages; expected one image")
                yield image
    except UnidentifiedImageError:
        raise DataError("not a PNG, JPEG, TIFF or BMP image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise DataError(f"the image has more than {limit} million pixels; too large to be safe") from None
    except _DECODER_ERRORS as error:
        raise DataError(f"the image is damaged or truncated ({type(error).__name__})") from error


def _plain_format(image: Image.Image) -> str:
    # Phones write multi-picture JPEGs, whose first picture is an ordinary JPEG.
    return "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)


def _bytes_per_pixel(image: Image.Image) -> int:
    return 2 if image.mode in _DEEP_MODES else len(image.getbands())


def _is_inverted_16_bit(image: Image.Image) -> bool:
    """Pillow inverts 8-bit TIFFs whose zero is white, but not 16-bit ones."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in _DEEP_MODES:
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO)


def _deep_grey(values: NDArray[np.generic], *, is_inverted: bool) -> NDArray[np.uint16]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"grey values from {low} to {high} do not fit 16 bits without sign")
    grey = values.astype(np.uint16)
    return np.uint16(65535) - grey if is_inverted else grey


def _shallow_grey(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise DataError("floating-point grey values; expected 8 or 16 bits without sign")
    if image.mode in ("L", "1"):
        return np.array(image.convert("L"))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.array(Image.alpha_composite(black, colour).convert("L"))
    return np.array(image.convert("RGB").convert("L"))
