import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.anatomy import Anatomy
from fedcad.simulations.phantom.patients import draw_patient
from fedcad.simulations.phantom.projector import Beam, line_integrals
from fedcad.simulations.phantom.thorax import WATER_PER_MM, Thorax, side_name


def _thorax(seed: int, inspiration: float = 1.0) -> Thorax:
    return Thorax(draw_patient(np.random.default_rng(seed)), inspiration)


@given(seed=st.integers(0, 2000))
@settings(max_examples=15, deadline=None)
def test_heart_width_is_the_drawn_cardiothoracic_ratio(seed: int) -> None:
    thorax = _thorax(seed)
    beam = Beam(rows=200, columns=300, spacing_mm=1.0, source_to_detector_mm=None)
    columns = np.flatnonzero(line_integrals([thorax.heart], [1.0], beam).any(axis=0))
    ratio = (columns[-1] - columns[0] + 1) / (2 * thorax.half_width_mm)
    assert ratio == pytest.approx(thorax.patient.cardiothoracic_ratio, abs=0.012)


@given(seed=st.integers(0, 2000), inspiration=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_trunk_is_water_and_lungs_are_air(seed: int, inspiration: float) -> None:
    thorax = _thorax(seed, inspiration)
    points = np.random.default_rng(seed).uniform((-230, -150, -150), (230, 150, 150), (3000, 3))
    trunk = Anatomy(tuple(thorax.trunk())).attenuation_at(points)
    # Neck, shoulders and arms may share space, at most two of them: never negative, mostly water or air.
    assert set(np.round(trunk / WATER_PER_MM).astype(int)) <= {0, 1, 2}
    lung = Anatomy(tuple(thorax.lungs()))
    inside = lung.attenuation_at(points) < 0
    assert inside.mean() > 0.05
    soft = (Anatomy((*thorax.trunk(), *thorax.lungs())).attenuation_at(points))[inside]
    assert np.median(soft) == pytest.approx(WATER_PER_MM * thorax.patient.lung_density)


def test_breath_moves_the_diaphragm() -> None:
    low, high = _thorax(3, 1.0).dome(1), _thorax(3, 0.0).dome(1)
    assert high.centre_mm[2] - low.centre_mm[2] == pytest.approx(30.0 * _thorax(3).patient.stature)


def test_right_dome_is_higher() -> None:
    thorax = _thorax(4)
    difference = thorax.dome(-1).centre_mm[2] - thorax.dome(1).centre_mm[2]
    assert difference == pytest.approx(thorax.patient.dome_difference_mm)


def test_side_names() -> None:
    assert (side_name(-1), side_name(1)) == ("right", "left")
