"""Grey values and acquisition facts of one DICOM radiograph, larger always brighter.

The grey values stay as close to the stored ones as they can (no windowing, no loss of depth): a linear
rescale and the window are carried as acquisition facts in units of these grey values; modality and VOI
tables are applied, because a window cannot express them (DICOM PS3.3 C.11.1 and C.11.2, PS3.4 N.2).
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import parse_acquisition, view_position
from fedcad.simulations.datasets.interface import Pixels

# What pydicom and its decoders raise on damaged files.
DICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""Exceptions of pydicom that mean that a file, not the program, is at fault."""

_MAX_PIXELS = 80_000_000


@dataclass(frozen=True)
class _GreyScale:
    """How stored values map to grey values: ``grey = stored + shift``, then ``top - grey`` if flipped."""

    bits: int
    shift: int
    is_flipped: bool
    slope: float
    intercept: float

    def of_rescaled(self, value: float) -> float:
        """Return the grey value at a rescaled value, such as the middle of a window."""
        grey = (value - self.intercept) / self.slope + self.shift
        return (2**self.bits - 1) - grey if self.is_flipped else grey


def read_dicom_grey(path: Path) -> Pixels:
    """Read the grey values of a DICOM file.

    Returns:
        Shape (rows, columns), uint8 or uint16, larger is brighter; padding is darkest.

    Raises:
        DataError: The content is no usable single-frame image.
        OSError: The file cannot be read (gone, no permission, failing disk).
    """
    content = path.read_bytes()
    try:
        dataset = dcmread(io.BytesIO(content))
        describe_acquisition(dataset)
        return _grey(dataset)
    except DICOM_ERRORS as error:
        raise DataError(f"the DICOM image cannot be decoded ({type(error).__name__})") from error


def describe_acquisition(dataset: Dataset) -> dict[str, str]:
    """Return the acquisition facts of a DICOM image, as ``Record.acquisition`` carries them.

    Modalities other than CR and DX become CR, so that any projection image can be tried.

    Raises:
        DataError: No pixels, several frames, more than 16 bits, or too large to be safe.
    """
    _check_pixels(dataset)
    scale = _grey_scale(dataset)
    facts = {
        "modality": "DX" if _text(dataset, "Modality") == "DX" else "CR",
        "vendor": _text(dataset, "Manufacturer"),
        "model": _text(dataset, "ManufacturerModelName"),
        "view": view_position(_text(dataset, "ViewPosition")) or "",
        "photometric": "MONOCHROME1" if _text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else "",
        "bits_stored": str(max(scale.bits, 8)),
        "pixel_spacing_mm": _spacing(dataset),
        **_window(dataset, scale),
        **_lossy(dataset),
    }
    kept = {key: text for key, text in facts.items() if text}
    parse_acquisition(kept)
    return kept


def _check_pixels(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise DataError("the DICOM file holds no pixels of 8 or 16 bits")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise DataError("the image has several frames; expected one")
    if not 1 <= int(dataset.Rows) * int(dataset.Columns) <= _MAX_PIXELS:
        raise DataError(
            f"the image has {int(dataset.Rows) * int(dataset.Columns)} pixels; too large or empty"
        )
    if not 1 <= int(dataset.BitsStored) <= 16:
        raise DataError(f"grey values have {dataset.BitsStored} bits; expected at most 16")
    if int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        raise DataError("grey values are not in the lowest bits (HighBit); PS3.5 8.1.1 wants that")


def _grey_scale(dataset: Dataset) -> _GreyScale:
    bits = int(dataset.BitsStored)
    if _is_colour(dataset):
        if _is_palette(dataset):
            bits = 8 if int(dataset.RedPaletteColorLookupTableDescriptor[2]) <= 8 else 16
        return _GreyScale(bits=bits, shift=0, is_flipped=False, slope=1.0, intercept=0.0)
    slope = float(dataset.get("RescaleSlope") or 1.0)
    is_signed = int(dataset.PixelRepresentation) == 1
    table_bits = _table_bits(dataset)
    return _GreyScale(
        bits=table_bits or bits,
        shift=2 ** (bits - 1) if is_signed and not table_bits else 0,
        # With a table the rescale is applied, and its direction with it.
        is_flipped=_is_inverted(dataset) != (slope < 0.0 and not table_bits),
        slope=slope,
        intercept=float(dataset.get("RescaleIntercept") or 0.0),
    )


def _grey(dataset: Dataset) -> Pixels:
    stored = pixel_array(dataset)
    scale = _grey_scale(dataset)
    if _is_colour(dataset):
        return _luminance(dataset, stored)
    if _is_sigmoid(dataset):
        values = _sigmoid(apply_modality_lut(stored, dataset), dataset)
    elif _table_bits(dataset):
        # Tables may take signed input; their output is never signed.
        values = apply_voi(apply_modality_lut(stored, dataset), dataset).astype(np.int64)
    else:
        values = _unsigned(dataset, stored)
    top = 2**scale.bits - 1
    grey = np.clip(values, 0, top)
    if scale.is_flipped:
        grey = top - grey
    grey[_padding(dataset, stored)] = 0
    return grey.astype(np.uint8) if scale.bits <= 8 else grey.astype(np.uint16)


def _unsigned(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.int64]:
    """Cut off the bits above the stored ones, where old files keep overlays (PS3.5 8.1.1), and unsign."""
    bits = int(dataset.BitsStored)
    values: NDArray[np.int64] = stored.astype(np.int64) & (2**bits - 1)
    # Turning the sign bit of two's complement adds half the range.
    return values ^ (2 ** (bits - 1)) if int(dataset.PixelRepresentation) == 1 else values


def _luminance(dataset: Dataset, stored: NDArray[Any]) -> Pixels:
    """Return ITU-R BT.601 luminance; pydicom has turned YBR into RGB already."""
    colour = apply_color_lut(stored, dataset) if _is_palette(dataset) else stored
    luminance = np.rint(colour[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114]))
    if colour.dtype.itemsize == 1:
        return np.asarray(luminance, dtype=np.uint8)
    return np.asarray(luminance, dtype=np.uint16)


def _padding(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels that Pixel Padding Value and its range limit declare to be no image: C.7.5.1.1.2."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, dtype=bool)
    one = int(dataset.PixelPaddingValue)
    other = int(dataset.get("PixelPaddingRangeLimit", one))
    return (stored >= min(one, other)) & (stored <= max(one, other))


def _is_colour(dataset: Dataset) -> bool:
    return int(dataset.get("SamplesPerPixel") or 1) > 1 or _is_palette(dataset)


def _is_palette(dataset: Dataset) -> bool:
    return "PALETTE" in _text(dataset, "PhotometricInterpretation")


def _is_inverted(dataset: Dataset) -> bool:
    """Presentation LUT Shape rules over the photometric interpretation where present: PS3.3 C.11.6."""
    shape = _text(dataset, "PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"


def _is_sigmoid(dataset: Dataset) -> bool:
    return (
        _text(dataset, "VOILUTFunction") == "SIGMOID"
        and not dataset.get("VOILUTSequence")
        and dataset.get("WindowCenter") is not None
        and float(_first(dataset.get("WindowWidth") or 0.0)) > 0.0
    )


def _sigmoid(rescaled: NDArray[Any], dataset: Dataset) -> NDArray[np.int64]:
    """Apply the sigmoid window of PS3.3 C.11.2.1.3.1, which no linear window can express."""
    center, width = float(_first(dataset.WindowCenter)), float(_first(dataset.WindowWidth))
    # Beyond 60 the result is 0 or 65535 anyway; the bound avoids overflow.
    exponent = np.clip(-4.0 * (rescaled.astype(np.float64) - center) / width, -60.0, 60.0)
    return np.rint(65535.0 / (1.0 + np.exp(exponent))).astype(np.int64)


def _table_bits(dataset: Dataset) -> int:
    """Return the depth of the output of the last table (or sigmoid), 0 where all is linear."""
    if _is_sigmoid(dataset):
        return 16
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        if dataset.get(keyword):
            return int(dataset[keyword][0].LUTDescriptor[2])
    return 0


def _window(dataset: Dataset, scale: _GreyScale) -> dict[str, str]:
    """Return the linear window in grey values: PS3.3 C.11.2.1.2.1 and, exact, C.11.2.1.3.2."""
    centers, widths = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if _is_colour(dataset) or dataset.get("VOILUTSequence") or _is_sigmoid(dataset):
        return {}
    if centers is None or widths is None:
        return {"window": "none"}
    half = 0.0 if _text(dataset, "VOILUTFunction") == "LINEAR_EXACT" else 0.5
    middle = scale.of_rescaled(float(_first(centers)) - half)
    extent = (float(_first(widths)) - 2.0 * half) / abs(scale.slope)
    if extent < 0.0:
        return {"window": "none"}
    return {"window_center": f"{middle + 0.5:.8g}", "window_width": f"{extent + 1.0:.8g}"}


def _spacing(dataset: Dataset) -> str:
    values = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or ()
    return "\\".join(f"{float(value):.6g}" for value in values) if all(v > 0 for v in values) else ""


def _lossy(dataset: Dataset) -> dict[str, str]:
    if _text(dataset, "LossyImageCompression") != "01" or not dataset.get("LossyImageCompressionRatio"):
        return {}
    method = dataset.get("LossyImageCompressionMethod")
    ratio = dataset.LossyImageCompressionRatio
    return (
        {"lossy_method": str(_first(method)), "lossy_ratio": f"{float(_first(ratio)):.6g}"} if method else {}
    )


def _first(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) or not hasattr(value, "__getitem__") else value[0]


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()
