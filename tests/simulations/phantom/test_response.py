import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.exposures import Exposure, draw_exposure
from fedcad.simulations.phantom.response import (
    burn_marker,
    collimate,
    develop,
    noise,
    shading,
    to_grey,
    transmission,
    with_scatter,
)
from fedcad.simulations.phantom.vendors import DETECTORS, Detector

PLAIN = dataclasses.replace(
    DETECTORS[0], blur_mm=1e-6, scatter=0.0, heel=0.0, vignette=0.0, edge_gain=0.0, flattening=0.0,
    quanta_per_mm2=1e12, electronic_noise=0.0, noise_grain_mm=1e-6,
)  # fmt: skip


def _exposure(detector: Detector, **changes: object) -> Exposure:
    drawn = draw_exposure(np.random.default_rng(3), detector)
    neutral = {"dose": 1.0, "collimation": (0.0,) * 4, "marker_jitter": (0.0, 0.0), "brightness": 0.0}
    return dataclasses.replace(drawn, **(neutral | changes))  # type: ignore[arg-type]


def test_beer_lambert_hand_worked() -> None:
    # 100 mm of water at 0.019/mm let exp(-1.9) = 14.957 % pass; two layers multiply.
    layers = np.array([0.0, 1.9, 3.8], dtype=np.float32)
    assert transmission(layers) == pytest.approx([1.0, 0.149569, 0.149569**2], rel=1e-5)


def test_ideal_detector_gives_back_the_line_integral() -> None:
    integrals = np.random.default_rng(0).uniform(0.0, 4.0, (32, 32)).astype(np.float32)
    np.testing.assert_allclose(develop(integrals, PLAIN, _exposure(PLAIN), 1), integrals, atol=1e-3)


def test_scatter_makes_up_its_share() -> None:
    primary = np.random.default_rng(0).uniform(0.1, 0.9, (64, 64)).astype(np.float32)
    both = with_scatter(primary, 0.4, 400.0)
    assert 1 - primary.mean() / both.mean() == pytest.approx(0.4, abs=0.01)
    assert (both >= primary).all()


def test_heel_darkens_downwards_and_grid_sideways() -> None:
    light = shading(dataclasses.replace(PLAIN, heel=0.2, vignette=0.1), 100)
    assert light[0, 50] / light[-1, 50] == pytest.approx((1 - 0.001) / (1 - 0.199), rel=1e-3)
    assert light[50, 0] == pytest.approx(light[50, -1])
    assert light[50, 0] < 0.92 * light[50, 50]


@pytest.mark.parametrize("signal", [0.02, 0.5])
def test_noise_variance_is_quantum_plus_electronic(signal: float) -> None:
    detector = dataclasses.replace(DETECTORS[0], field_mm=256.0, quanta_per_mm2=1000.0, electronic_noise=5.0)
    drawn = noise(np.full((256, 256), signal, dtype=np.float32), detector, _exposure(detector))
    # One pixel is 1 mm^2: mean 1000 s quanta, variance 1000 s + 25, over 1000 quanta.
    assert drawn.std() == pytest.approx(np.sqrt(1000 * signal + 25) / 1000, rel=0.02)
    assert drawn.mean() == pytest.approx(0.0, abs=4 * float(drawn.std()) / 256)


def test_noise_is_correlated_by_its_grain() -> None:
    detector = dataclasses.replace(PLAIN, quanta_per_mm2=500.0, noise_grain_mm=3.0, field_mm=128.0)
    image = develop(np.full((128, 128), 1.0, dtype=np.float32), detector, _exposure(detector), 1)
    image -= image.mean()
    assert (image[:, 1:] * image[:, :-1]).mean() / (image**2).mean() > 0.8


@given(seed=st.integers(0, 1000), which=st.integers(0, len(DETECTORS) - 1))
@settings(max_examples=20, deadline=None)
def test_grey_values_stay_in_range(seed: int, which: int) -> None:
    image = np.random.default_rng(seed).normal(2.0, 1.0, (64, 64)).astype(np.float32)
    grey = to_grey(image, DETECTORS[which], _exposure(DETECTORS[which]))
    assert grey.min() >= 0.0 and grey.max() <= 1.0
    order = np.argsort(image.ravel())
    assert (np.diff(grey.ravel()[order]) >= -1e-6).all()  # thicker is never darker


def test_constant_image_does_not_divide_by_zero() -> None:
    assert np.isfinite(to_grey(np.ones((64, 64), dtype=np.float32), PLAIN, _exposure(PLAIN))).all()


def test_collimator_and_marker() -> None:
    detector = dataclasses.replace(PLAIN, shutter=0.25, marker=("R", "top-left"))
    exposure = _exposure(detector, collimation=(0.1, 0.0, 0.2, 0.0))
    grey = np.full((100, 100), 0.5, dtype=np.float32)
    collimate(grey, detector, exposure)
    assert (grey[:10] == 0.25).all() and (grey[:, :20] == 0.25).all() and (grey[10:, 20:] == 0.5).all()
    burn_marker(grey, detector, exposure)
    rows, columns = np.nonzero(grey == np.float32(0.97))
    assert rows.min() >= 10 and columns.min() >= 20 and rows.max() < 40 and columns.max() < 50
