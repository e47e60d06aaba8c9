"""Stored values: alignment worked out bit by bit."""

import numpy as np
import pytest

from fedcad.client.archive.layout import PixelLayout
from fedcad.client.archive.stored import align


def layout(*, stored: int, high: int, signed: bool) -> PixelLayout:
    return PixelLayout(
        rows=1,
        columns=1,
        samples=1,
        bits_allocated=16,
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        photometric="MONOCHROME2",
        planar=False,
    )


@pytest.mark.parametrize(
    ("word", "stored", "high", "signed", "value"),
    [
        (0xF123, 12, 11, False, 0x123),  # an overlay in the four upper bits
        (0x1234, 12, 15, False, 0x123),  # the value in the twelve upper bits
        (0xF823, 12, 11, True, 0x823 - 0x1000),  # bit 11 is the sign
        (0x0FFF, 12, 11, True, -1),  # a writer that did not extend the sign
        (0xFFFF, 16, 15, True, -1),
        (0xFFFF, 16, 15, False, 0xFFFF),
    ],
)
def test_alignment(word, stored, high, signed, value):
    values = np.array([[word]], np.uint16).view(np.int16 if signed else np.uint16)
    values.flags.writeable = False
    assert align(values, layout(stored=stored, high=high, signed=signed)).item() == value
