"""Names that may leave the site in place of a header's free text: vendors and views, from closed lists.

Why: people type into Manufacturer (0008,0070) and View Position (0018,5101) what they like, a patient's name
included. What is counted for the coordinator is therefore never the text itself.
"""

import re

UNKNOWN = "unknown"
OTHER = "other"

VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")
"""Defined terms of View Position: DICOM PS3.3 C.8.1.1 and C.8.11.5."""

_BEGINNINGS = {
    "agfa": "Agfa",
    "canon": "Canon",
    "carestream": "Carestream",
    "drtech": "DRTECH",
    "eastman kodak": "Kodak",
    "fuji": "Fujifilm",
    "fuji photo film": "Fujifilm",
    "fujifilm": "Fujifilm",
    "ge": "GE",
    "general electric": "GE",
    "hitachi": "Hitachi",
    "hologic": "Hologic",
    "iray": "iRay",
    "kodak": "Kodak",
    "konica": "Konica Minolta",
    "mindray": "Mindray",
    "oehm und rehbein": "Oehm und Rehbein",
    "philips": "Philips",
    "rayence": "Rayence",
    "samsung": "Samsung",
    "shimadzu": "Shimadzu",
    "siemens": "Siemens",
    "swissray": "Swissray",
    "toshiba": "Toshiba",
    "united imaging": "United Imaging",
    "uih": "United Imaging",
    "varex": "Varex",
    "varian": "Varian",
    "vieworks": "Vieworks",
}
"""Words with which manufacturers' names begin, in lower case, and the name that is counted."""

_INVENTED = (
    *(f"Phantom Vendor {letter}" for letter in "ABCDEF"),
    "Aurelia Imaging",
    "Borealis Medical",
    "Cassiopeia Health",
    "Delphin Systems",
    "Equinox Radiography",
    "Fjord Detectors",
)
"""Vendors of phantoms and emulated scanners, which a simulation's report tells apart."""

_NAMES = _BEGINNINGS | {name.lower(): name for name in _INVENTED}


def known_vendor(manufacturer: str) -> str:
    """Return the known vendor whose name begins a Manufacturer, else ``other``; ``unknown`` for none."""
    words = re.findall(r"[^\W_]+", manufacturer.lower())
    if not words:
        return UNKNOWN if not manufacturer.strip() else OTHER
    beginnings = (" ".join(words[:length]) for length in range(1, 4))
    return next((_NAMES[text] for text in beginnings if text in _NAMES), OTHER)


def known_view(view_position: str) -> str:
    """Return a View Position that is a defined term, in upper case, else ``other``; ``unknown`` for none."""
    view = view_position.strip().upper()
    if not view:
        return UNKNOWN
    return view if view in VIEWS else OTHER
