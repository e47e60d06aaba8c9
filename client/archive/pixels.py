"""Grey values of one DICOM X-ray as a radiologist's screen would show them, from 0 (black) to 1 (white)."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from fedcad.client.archive.grey import GREY_TAGS, display_values
from fedcad.client.archive.header import (
    DEFAULT_LIMITS,
    PARSE_FAILURES,
    Header,
    PixelLimits,
    numbers_of,
    quiet_parser,
    read_header,
)
from fedcad.client.archive.layout import COLOUR, LAYOUT_TAGS, PALETTE, PixelLayout, find_pixels, read_layout
from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.client.archive.stored import Stored, read_value, stored_values
from fedcad.client.archive.walk import open_read_only

_ASPECT_TAGS = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")
_PALETTE_TAGS = tuple(
    f"{prefix}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_TAGS = [*LAYOUT_TAGS, *GREY_TAGS, *_ASPECT_TAGS, *_PALETTE_TAGS]
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def read_display_pixels(path: Path, *, limits: PixelLimits = DEFAULT_LIMITS) -> NDArray[np.float32]:
    """Read one single-frame image for display.

    Modality and VOI transformations, polarity, padding, signedness, bit depth and colour are applied,
    overlays are left out, and oblong pixels are stretched to squares (never shrunk).

    Args:
        path: A DICOM file; only read.
        limits: Checked before anything is decoded.

    Returns:
        float32, shape (rows, columns), 0 to 1, larger is brighter. The shape differs from Rows and Columns
        only where pixels are not square.

    Raises:
        UnusableFile: An ArchiveError with a reason; never says anything about the patient.

    References:
        DICOM PS3.4 N.2; colour to grey by ITU-R BT.601 luma, as in PS3.3 C.7.6.3.1.2.
    """
    with open_read_only(path) as stream:
        header = read_header(stream, _TAGS, limits=limits)
        layout = read_layout(header.dataset, limits)
        try:
            element = find_pixels(stream, layout, header.transfer_syntax)
            content = read_value(stream, element)
        except OSError as error:
            raise UnusableFile(Reason.UNREADABLE, "reading the pixels failed") from error
    stored = stored_values(content, header, layout, element)
    return _make_square(_to_grey(stored, header, layout), _pixel_aspect(header.dataset, limits), limits)


def _to_grey(stored: Stored, header: Header, layout: PixelLayout) -> NDArray[np.float32]:
    """Return display values of grey, colour and palette images."""
    if layout.photometric == PALETTE:
        try:
            with quiet_parser():
                colours = apply_color_lut(stored, header.dataset)
        except PARSE_FAILURES as error:
            raise UnusableFile(Reason.INVALID_TRANSFORM, "the colour palette cannot be applied") from error
        return _luma(colours, float(np.iinfo(colours.dtype).max))
    if layout.photometric in COLOUR:
        return _luma(stored, float(2**layout.bits_stored - 1))
    return display_values(stored, header, layout)


def _luma(colours: NDArray[np.integer], largest: float) -> NDArray[np.float32]:
    """Return BT.601 luma of RGB values, shape (rows, columns, 3)."""
    luma: NDArray[np.float32] = colours[..., :3].astype(np.float32) @ _LUMA
    luma /= np.float32(largest)
    np.clip(luma, 0, 1, out=luma)
    return luma


def _pixel_aspect(dataset: Dataset, limits: PixelLimits) -> float:
    """Return height divided by width of a pixel; Pixel Aspect Ratio and the spacings put rows first.

    References:
        DICOM PS3.3 C.7.6.3.1.7 (Pixel Aspect Ratio), 10.7.1.3 (spacings).
    """
    for keyword in _ASPECT_TAGS:
        values = numbers_of(dataset, keyword)
        if not any(values):  # absent, or 0\0 as anonymisers write for unknown
            continue
        usable = len(values) == 2 and all(np.isfinite(values)) and min(values) > 0
        aspect = values[0] / values[1] if usable else 0.0
        if not 1 / limits.max_aspect <= aspect <= limits.max_aspect:
            raise UnusableFile(Reason.IMPLAUSIBLE_ASPECT, f"{keyword} does not give plausible pixels")
        return aspect
    return 1.0


def _make_square(display: NDArray[np.float32], aspect: float, limits: PixelLimits) -> NDArray[np.float32]:
    """Stretch rows or columns so that pixels become square; nothing where less than a pixel changes."""
    rows, columns = display.shape
    size = (round(rows * max(aspect, 1.0)), round(columns * max(1 / aspect, 1.0)))
    if size == (rows, columns):
        return display
    if size[0] * size[1] > limits.max_samples:
        raise UnusableFile(Reason.ABSURD_DIMENSIONS, "with square pixels the image would be above the limit")
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(display)[None, None], size=size, mode="bilinear", align_corners=False
    )
    return stretched[0, 0].numpy()
