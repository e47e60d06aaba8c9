import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.grids import (
    block_mean,
    cloud,
    filtered,
    frequencies,
    gaussian_transfer,
    resize,
)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    to_rows=st.integers(1, 90),
    to_columns=st.integers(1, 90),
)
@settings(max_examples=40, deadline=None)
def test_resize_keeps_constants_and_bounds(rows: int, columns: int, to_rows: int, to_columns: int) -> None:
    image = np.random.default_rng(rows).random((rows, columns), dtype=np.float32)
    got = resize(image, to_rows, to_columns)
    assert got.shape == (to_rows, to_columns)
    assert got.min() >= image.min() - 1e-6 and got.max() <= image.max() + 1e-6
    assert np.allclose(resize(np.full_like(image, 3.5), to_rows, to_columns), 3.5)


def test_resize_hand_worked() -> None:
    # Pixel centres 0.5, 1.5 become 0.25, 0.75, 1.25, 1.75 on the finer grid; outer ones are held.
    got = resize(np.array([[0.0, 4.0]], dtype=np.float32), 1, 4)
    assert got[0] == pytest.approx([0.0, 1.0, 3.0, 4.0])


def test_block_mean_hand_worked() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert block_mean(image, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert block_mean(image, 1) is image


def test_gaussian_filter_blurs_by_its_deviation() -> None:
    image = np.zeros((81, 81), dtype=np.float32)
    image[40, 40] = 1.0
    got = filtered(image, gaussian_transfer(frequencies(81, 81, 0.5), 2.0))
    assert got.sum() == pytest.approx(1.0, abs=1e-4)
    place = (np.arange(81) - 40) * 0.5
    assert float(np.sqrt((got.sum(axis=0) * place**2).sum())) == pytest.approx(2.0, rel=0.01)


def test_cloud_is_standardised_and_smoother_with_slope() -> None:
    white, smooth = cloud(1, 64, 0.0), cloud(1, 64, 1.5)
    for field in (white, smooth):
        assert field.mean() == pytest.approx(0.0, abs=1e-4)
        assert field.std() == pytest.approx(1.0, abs=1e-4)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(white)).mean()
    assert np.array_equal(cloud(1, 64, 1.5), smooth)
