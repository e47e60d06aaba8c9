"""From stored values to grey values for display: modality, VOI, polarity and padding transformations.

References:
    DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.8.11.3 (digital X-ray), C.7.5.1.1.2 (padding),
    PS3.4 N.2 (order of the transformations).
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedcad.client.archive.header import Header, first_item_of, integer_of, text_of
from fedcad.client.archive.layout import PixelLayout
from fedcad.client.archive.lookup import Lookup, read_lookup
from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.client.archive.stored import Stored

GREY_TAGS = (
    "SOPClassUID",
    "PresentationIntentType",
    "PresentationLUTShape",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
"""Elements that :func:`display_values` needs."""

ROBUST_PERCENTILES = (0.5, 99.5)
"""Window of images without one: these percentiles of the values that are no padding."""

# Four passes over a block that stays in the processor's cache cost little more than one over the image.
_BLOCK_PIXELS = 262144
_FOR_PROCESSING_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.1.1.1"})


@dataclass(frozen=True)
class Window:
    """Window of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Attributes:
        centre: Window Center.
        width: Window Width, at least 1 for ``LINEAR`` and above 0 otherwise.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    centre: float
    width: float
    function: str

    def bounds(self) -> tuple[float, float]:
        """Return the values that become 0 and 1 (not for ``SIGMOID``)."""
        if self.function == "LINEAR":
            half = (self.width - 1) / 2
            return self.centre - 0.5 - half, self.centre - 0.5 + half
        return self.centre - self.width / 2, self.centre + self.width / 2

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map modality values to 0..1."""
        if self.function == "SIGMOID":
            # Beyond ±40 the result is 0 or 1 in float32; without the clip exp overflows.
            exponent = np.clip(-4 * (values - self.centre) / self.width, -60, 60)
            return 1 / (1 + np.exp(exponent))
        lower, upper = self.bounds()
        if upper == lower:
            return (values > lower).astype(np.float64)
        return np.clip((values - lower) / (upper - lower), 0, 1)


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map stored values to modality values."""
        return values * self.slope + self.intercept


def display_values(stored: Stored, header: Header, layout: PixelLayout) -> NDArray[np.float32]:
    """Apply every grey-scale transformation of a CR or DX image.

    Args:
        stored: Values as stored, shape (rows, columns), aligned.
        header: The file's header.
        layout: Its pixel attributes.

    Returns:
        float32, shape (rows, columns), 0 to 1, larger is brighter; padding is 0.

    Raises:
        UnusableFile: A transformation is invalid, or no window can be found.
    """
    dataset = header.dataset
    modality = _modality(header, layout)
    padding = _padding(dataset, layout)
    voi = _voi(header, layout, modality) or _robust_bounds(stored, modality, padding, layout)
    inverted = _is_inverted(dataset, layout)
    bounds = _stored_bounds(modality, voi)
    if bounds is None:
        display = _by_table(stored, modality, voi, inverted=inverted, layout=layout)
    else:
        zero, one = reversed(bounds) if inverted else bounds
        display = _by_line(stored, zero, one)
    if padding is not None:
        display[(stored >= padding[0]) & (stored <= padding[1])] = 0
    return display


def _is_inverted(dataset: Dataset, layout: PixelLayout) -> bool:
    """Whether small values are bright; in DX both attributes say the same thing (C.8.11.3.1.2)."""
    return layout.photometric == "MONOCHROME1" or text_of(dataset, "PresentationLUTShape") == "INVERSE"


def _number(dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """Return a finite decimal number."""
    text = text_of(dataset, keyword)
    if not text and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise UnusableFile(Reason.INVALID_TRANSFORM, f"{keyword} is not a finite number")
    return value


def _modality(header: Header, layout: PixelLayout) -> Rescale | Lookup:
    """Return the modality transformation; the sequence excludes slope and intercept (C.11.1.1)."""
    dataset = header.dataset
    item = first_item_of(dataset, "ModalityLUTSequence")
    if item is not None:
        return read_lookup(item, signed=layout.signed, byte_order=header.byte_order)
    slope = _number(dataset, "RescaleSlope", 1.0)
    if slope == 0:
        raise UnusableFile(Reason.INVALID_TRANSFORM, "RescaleSlope is 0, which erases the image")
    return Rescale(slope, _number(dataset, "RescaleIntercept", 0.0))


def _voi(header: Header, layout: PixelLayout, modality: Rescale | Lookup) -> Window | Lookup | None:
    """Return the first VOI LUT, else the first window; None for raw images and where there is neither."""
    dataset = header.dataset
    raw = text_of(dataset, "PresentationIntentType") == "FOR PROCESSING"
    if raw or text_of(dataset, "SOPClassUID") in _FOR_PROCESSING_CLASSES:
        return None
    item = first_item_of(dataset, "VOILUTSequence")
    if item is not None:
        # After rescaling, inputs are negative where the lowest modality value is (C.11.2.1.1).
        signed = isinstance(modality, Rescale) and min(modality.apply(_levels(layout)[[0, -1]])) < 0
        return read_lookup(item, signed=signed, byte_order=header.byte_order)
    if not text_of(dataset, "WindowCenter") or not text_of(dataset, "WindowWidth"):
        return None
    function = text_of(dataset, "VOILUTFunction") or "LINEAR"
    window = Window(_number(dataset, "WindowCenter"), _number(dataset, "WindowWidth"), function)
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnusableFile(Reason.INVALID_TRANSFORM, "VOILUTFunction is none that DICOM defines")
    if window.width <= 0 or (function == "LINEAR" and window.width < 1):
        raise UnusableFile(
            Reason.INVALID_TRANSFORM, f"WindowWidth {window.width:g} is too small for {function}"
        )
    return window


def _padding(dataset: Dataset, layout: PixelLayout) -> tuple[int, int] | None:
    """Return the lowest and highest stored value that mean no image."""
    values = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = integer_of(dataset, keyword)
        if value is not None:
            # Files disagree whether the element is signed; the pixels decide (PS3.5 section 8.2, US or SS).
            wrapped = value % 65536
            values.append(wrapped - 65536 if layout.signed and wrapped > 32767 else wrapped)
    if integer_of(dataset, "PixelPaddingValue") is None:
        return None
    return min(values), max(values)


def _levels(layout: PixelLayout) -> NDArray[np.float64]:
    """Every value that can be stored."""
    lowest = -(2 ** (layout.bits_stored - 1)) if layout.signed else 0
    return np.arange(lowest, lowest + 2**layout.bits_stored, dtype=np.float64)


def _robust_bounds(
    stored: Stored, modality: Rescale | Lookup, padding: tuple[int, int] | None, layout: PixelLayout
) -> Window:
    """Return a window between two percentiles of the values that are no padding."""
    levels = _levels(layout)
    lowest = int(levels[0])
    index = np.clip(stored.astype(np.int64).ravel() - lowest, 0, len(levels) - 1)
    counts = np.bincount(index, minlength=len(levels))
    if padding is not None:
        counts[(levels >= padding[0]) & (levels <= padding[1])] = 0
    present = np.flatnonzero(counts)
    if not len(present):
        raise UnusableFile(Reason.EMPTY_IMAGE, "every pixel is padding")
    values = modality.apply(levels[present])
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(counts[present][order])
    wanted = np.asarray(ROBUST_PERCENTILES) / 100 * cumulative[-1]
    lower, upper = values[order][np.searchsorted(cumulative, wanted)]
    if lower == upper:
        lower, upper = values.min(), values.max()
    if lower == upper:
        raise UnusableFile(Reason.EMPTY_IMAGE, "all pixels are alike and no window is given")
    return Window(float(lower + upper) / 2, float(upper - lower), "LINEAR_EXACT")


def _stored_bounds(modality: Rescale | Lookup, voi: Window | Lookup) -> tuple[float, float] | None:
    """Return the stored values that become 0 and 1 where the whole chain is one straight line, else None."""
    if not isinstance(modality, Rescale) or not isinstance(voi, Window) or voi.function == "SIGMOID":
        return None
    lower, upper = ((bound - modality.intercept) / modality.slope for bound in voi.bounds())
    return None if lower == upper else (lower, upper)


def _by_line(stored: Stored, zero: float, one: float) -> NDArray[np.float32]:
    """Map one stored value to 0, another to 1, the rest on a straight line, clipped.

    Subtracting first keeps float32 exact to 1e-7 of the window wherever the window lies.
    """
    display = np.empty(stored.shape, dtype=np.float32)
    factor = np.float32(1 / (one - zero))
    step = max(1, _BLOCK_PIXELS // stored.shape[1])
    for row in range(0, len(stored), step):
        block = display[row : row + step]
        # Converting first is exact, and quicker than a subtraction that converts in small buffers.
        np.copyto(block, stored[row : row + step])
        np.subtract(block, np.float32(zero), out=block)
        np.multiply(block, factor, out=block)
        np.clip(block, 0, 1, out=block)
    return display


def _by_table(
    stored: Stored, modality: Rescale | Lookup, voi: Window | Lookup, *, inverted: bool, layout: PixelLayout
) -> NDArray[np.float32]:
    """Compute the chain once for every storable value and look the pixels up."""
    levels = _levels(layout)
    values = modality.apply(levels)
    table = voi.apply(values) / (2**voi.bits - 1 if isinstance(voi, Lookup) else 1)
    table = (1 - table if inverted else table).astype(np.float32)
    return table.take(stored.astype(np.int64) - int(levels[0]), mode="clip")
