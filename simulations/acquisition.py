"""Acquisition facts of a record, checked once and typed.

Why: a record carries them as plain text, because they come from the columns of a label table, from DICOM
attributes or from a phantom; scanner emulation and the DICOM writer need numbers and enumerations.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedcad.shared.errors import DataError

ACQUISITION_KEYS = (
    "modality",
    "vendor",
    "model",
    "view",
    "photometric",
    "bits_stored",
    "pixel_spacing_mm",
    "body_part",
    "window_center",
    "window_width",
    "window",
    "lossy_method",
    "lossy_ratio",
)
"""Keys of ``Record.acquisition`` that are understood; further ones are carried but not written."""

VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")
"""Defined terms of View Position (0018,5101): DICOM PS3.3 C.8.1.1 and C.8.11.5."""

BODY_PARTS = ("CHEST", "ABDOMEN", "BREAST", "HEAD", "HAND", "SKULL")
"""Body parts that the DICOM writer has anatomic codes for (DICOM PS3.16 Annex L)."""

_LATERAL = {"L": "LL", "LAT": "LL", "LATERAL": "LL", "FRONTAL": None}


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What the DICOM attributes of one radiograph say about how it was taken.

    Attributes:
        modality: ``CR`` or ``DX``.
        vendor: Manufacturer, may be empty.
        model: Manufacturer's model name, may be empty.
        view: A defined term of View Position, or None where unknown.
        photometric: ``MONOCHROME1`` (stored values are inverted) or ``MONOCHROME2``.
        bits_stored: Bits of a grey value, 8 to 16; None means all bits of the pixels' dtype.
        spacing_mm: Distance of rows and of columns in mm, or None where unknown.
        body_part: Body Part Examined.
        window: Center and width in grey values (larger is brighter), or None for the whole range.
        has_window: Whether a DICOM object is to carry a window; a source without one is left without.
        lossy: Method (defined term) and ratio of a lossy compression in the past, or None.
    """

    modality: str = "CR"
    vendor: str = ""
    model: str = ""
    view: str | None = None
    photometric: str = "MONOCHROME2"
    bits_stored: int | None = None
    spacing_mm: tuple[float, float] | None = None
    body_part: str = "CHEST"
    window: tuple[float, float] | None = None
    has_window: bool = True
    lossy: tuple[str, float] | None = None


def parse_acquisition(facts: Mapping[str, str]) -> Acquisition:
    """Check the acquisition facts of a record.

    Absent and empty facts take the defaults of :class:`Acquisition`.

    Raises:
        DataError: A fact has a value that no CR or DX object can carry.
    """
    window = _numbers(facts, "window_center", "window_width")
    if window is not None and window[1] < 1.0:
        raise DataError(f"window_width is {window[1]}; expected at least 1")
    lossy_ratio = _number(facts, "lossy_ratio")
    lossy_method = facts.get("lossy_method", "")
    return Acquisition(
        modality=_choice(facts, "modality", ("CR", "DX"), "CR"),
        vendor=facts.get("vendor", ""),
        model=facts.get("model", ""),
        view=view_position(facts.get("view", "")),
        photometric=_choice(facts, "photometric", ("MONOCHROME1", "MONOCHROME2"), "MONOCHROME2"),
        bits_stored=_bits(facts.get("bits_stored", "")),
        spacing_mm=_spacing(facts.get("pixel_spacing_mm", "")),
        body_part=_choice(facts, "body_part", BODY_PARTS, "CHEST"),
        window=window,
        has_window=_choice(facts, "window", ("WRITTEN", "NONE"), "WRITTEN") == "WRITTEN",
        lossy=(lossy_method, lossy_ratio) if lossy_method and lossy_ratio else None,
    )


def view_position(text: str) -> str | None:
    """Return the defined term that a free text such as ``ap`` or ``AP Supine`` starts with, or None."""
    words = re.findall(r"[A-Z]+", text.upper())
    if not words:
        return None
    return words[0] if words[0] in VIEWS else _LATERAL.get(words[0])


def _choice(facts: Mapping[str, str], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = facts.get(key, "").strip().upper() or default
    if value not in allowed:
        raise DataError(f"{key} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _bits(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 8 <= int(text) <= 16:
        raise DataError(f"bits_stored is {text!r}; expected a whole number from 8 to 16")
    return int(text)


def _spacing(text: str) -> tuple[float, float] | None:
    parts = [part for part in re.split(r"[\\\s,;]+", text) if part]
    if not parts:
        return None
    values = [_positive("pixel_spacing_mm", part) for part in parts]
    if len(values) > 2:
        raise DataError(f"pixel_spacing_mm is {text!r}; expected one number or row\\column, in mm")
    return values[0], values[-1]


def _numbers(facts: Mapping[str, str], first: str, second: str) -> tuple[float, float] | None:
    one, two = _number(facts, first), _number(facts, second)
    return None if one is None or two is None else (one, two)


def _number(facts: Mapping[str, str], key: str) -> float | None:
    text = facts.get(key, "")
    return _finite(key, text) if text else None


def _positive(key: str, text: str) -> float:
    value = _finite(key, text)
    if value <= 0.0:
        raise DataError(f"{key} is {text!r}; expected more than 0")
    return value


def _finite(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{key} is {text!r}; expected a number") from None
    if not math.isfinite(value):
        raise DataError(f"{key} is {text!r}; expected a finite number")
    return value
