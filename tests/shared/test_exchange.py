"""Rounding to the precision of the exchange."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcad.shared.exchange import rounded

VECTORS = hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(-60000, 60000, width=32))


@given(VECTORS)
def test_float32_stays_as_it_is(vector: np.ndarray) -> None:
    assert rounded({"model": vector}, "float32")["model"] is vector


@given(VECTORS)
def test_rounded_values_survive_float16_and_a_second_rounding(vector: np.ndarray) -> None:
    once = rounded({"model": vector}, "float16")["model"]
    assert once.dtype == np.float32
    assert not once.flags.writeable
    assert np.array_equal(once.astype(np.float16).astype(np.float32), once)
    assert np.array_equal(rounded({"model": once}, "float16")["model"], once)
    assert np.all(np.abs(once - vector) <= np.maximum(np.abs(vector) * 2.0**-11, 2.0**-25))


def test_what_float16_cannot_hold_is_infinite() -> None:
    found = rounded({"model": np.array([1e6, -1e6, 1.0], dtype=np.float32)}, "float16")["model"]
    assert found.tolist() == [float("inf"), float("-inf"), 1.0]
