import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.phantom.exposures import SHALLOWEST_BREATH, draw_exposure
from fedcad.simulations.phantom.vendors import DETECTORS


@given(seed=st.integers(0, 2**40), which=st.integers(0, len(DETECTORS) - 1))
def test_drawn_values_are_plausible(seed: int, which: int) -> None:
    detector = DETECTORS[which]
    exposure = draw_exposure(np.random.default_rng(seed), detector)
    assert exposure == draw_exposure(np.random.default_rng(seed), detector)
    assert SHALLOWEST_BREATH <= exposure.inspiration <= 1.0
    assert (exposure.source_to_detector_mm < 1300) == (exposure.view == "AP")
    assert all(0.0 <= share <= detector.collimation_share for share in exposure.collimation)
    assert 0.3 < exposure.dose < 3.0


def test_share_of_lying_patients_follows_the_detector() -> None:
    mobile = next(detector for detector in DETECTORS if detector.lying_share > 0.8)
    upright = next(detector for detector in DETECTORS if detector.lying_share == 0.0)
    views = [draw_exposure(np.random.default_rng(seed), mobile).view for seed in range(200)]
    assert views.count("AP") / 200 == pytest.approx(mobile.lying_share, abs=0.1)
    assert all(draw_exposure(np.random.default_rng(seed), upright).view == "PA" for seed in range(50))


def test_beam_covers_the_field_at_any_size() -> None:
    exposure = draw_exposure(np.random.default_rng(1), DETECTORS[0])
    for size in (64, 101, 512):
        beam = exposure.beam(DETECTORS[0], size)
        assert beam.spacing_mm * size == pytest.approx(DETECTORS[0].field_mm)
