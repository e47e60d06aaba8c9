"""Side markers, the lead letters that technicians place in the field."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcad.simulations.phantom.vendors import Corner

_LETTERS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}
_MARGIN = 0.06  # of the field, from its edges


def letter(side: Literal["L", "R"], height_px: int) -> NDArray[np.bool_]:
    """Return a letter as a mask of ``height_px`` rows (at least 5), 5/7 as wide."""
    rows = max(5, height_px)
    columns = max(4, round(rows * 5 / 7))
    glyph = np.array([[mark == "1" for mark in line] for line in _LETTERS[side]])
    down = (np.arange(rows) + 0.5) * 7 / rows
    across = (np.arange(columns) + 0.5) * 5 / columns
    return glyph[down.astype(np.intp)][:, across.astype(np.intp)]


def place_of(
    corner: Corner, shift: tuple[float, float], shape: tuple[int, int], size: int
) -> tuple[int, int]:
    """Return the first row and column of a marker in a square image of ``size`` pixels, always inside it.

    ``shift`` moves it inwards, down or up and right or left, as a share of the image.
    """
    vertical, horizontal = corner.split("-")
    top = (_MARGIN + shift[0]) * size
    left = (_MARGIN + shift[1]) * size
    row = top if vertical == "top" else size - shape[0] - top
    column = left if horizontal == "left" else size - shape[1] - left
    return (
        int(np.clip(round(row), 0, max(0, size - shape[0]))),
        int(np.clip(round(column), 0, max(0, size - shape[1]))),
    )
