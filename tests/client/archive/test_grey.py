"""Windows as equations; whole chains are tested in test_pixels.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.archive.grey import Rescale, Window


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, example: c = 2048, w = 1: black up to 2047, white from 2048.
        (Window(2048, 1, "LINEAR"), [2047, 2048], [0, 1]),
        # Example: c = 0, w = 100: black up to -50, white above 49.
        (Window(0, 100, "LINEAR"), [-50, -0.5, 49], [0, 0.5, 1]),
        # C.11.2.1.3.2, c = 0, w = 100: black up to -50, white above 50.
        (Window(0, 100, "LINEAR_EXACT"), [-50, 0, 50], [0, 0.5, 1]),
        # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)); one w/4 above the centre is 1 / (1 + 1/e).
        (Window(0, 100, "SIGMOID"), [0, 25, -1e9, 1e9], [0.5, 1 / (1 + np.exp(-1)), 0, 1]),
    ],
)
def test_windows(window, values, expected):
    np.testing.assert_allclose(window.apply(np.array(values, dtype=np.float64)), expected, atol=1e-12)


@given(
    centre=st.floats(-1e5, 1e5),
    width=st.floats(1, 1e5),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_never_fall_and_stay_within_range(centre, width, function):
    outputs = Window(centre, width, function).apply(np.linspace(-2e5, 2e5, 101))
    assert outputs.min() >= 0 and outputs.max() <= 1 and (np.diff(outputs) >= 0).all()


def test_rescale():
    assert Rescale(2, -1).apply(np.array([0.0, 3.0])).tolist() == [-1, 5]
