import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.anatomy import Anatomy
from fedcad.simulations.phantom.findings import (
    Nodule,
    Opacity,
    draw_finding,
    draw_nodule,
    draw_opacity,
    draw_place,
    in_lungs,
    is_upper,
)
from fedcad.simulations.phantom.patients import draw_patient
from fedcad.simulations.phantom.thorax import WATER_PER_MM, Thorax


def _nodule(diameter: float, spiculation: float, lobulation: float, upper: bool) -> Nodule:
    return Nodule(
        position_mm=(80.0, 0.0, 20.0),
        diameter_mm=diameter,
        density=1.0,
        spiculation=spiculation,
        lobulation=lobulation,
        upper_lobe=upper,
        shape_seed=1,
    )


def _thorax(seed: int, inspiration: float = 0.1) -> Thorax:
    return Thorax(draw_patient(np.random.default_rng(seed)), inspiration)


@pytest.mark.parametrize(
    ("nodule", "points", "malignant"),
    [
        (_nodule(13.9, 0.0, 0.0, False), 0, False),
        (_nodule(14.0, 0.34, 0.59, False), 1, False),
        (_nodule(19.9, 0.35, 0.60, False), 3, False),
        (_nodule(20.0, 0.35, 0.60, False), 4, True),
        (_nodule(26.0, 0.0, 0.0, False), 3, False),
        (_nodule(26.0, 0.0, 0.0, True), 4, True),
        (_nodule(30.0, 0.65, 0.60, True), 7, True),
    ],
)
def test_malignancy_rule(nodule: Nodule, points: int, malignant: bool) -> None:
    assert nodule.malignancy_points == points
    assert nodule.malignant is malignant


def test_nodule_is_solid_in_its_middle_and_ends_at_its_radius() -> None:
    nodule = _nodule(20.0, 0.0, 0.0, False)
    points = np.array(nodule.position_mm) + np.array([[0, 0, 0], [8.5, 0, 0], [12, 0, 0]])
    got = Anatomy(tuple(nodule.parts())).attenuation_at(points)
    np.testing.assert_allclose(got, [WATER_PER_MM, WATER_PER_MM, 0.0])


def test_spicules_reach_out() -> None:
    star = {part.name for part in _nodule(20.0, 0.9, 0.0, False).parts()}
    assert star == {"nodule-core", "nodule-spicules"}
    directions = np.random.default_rng(0).standard_normal((20000, 3))
    shell = np.array([80.0, 0.0, 20.0]) + 12.5 * directions / np.linalg.norm(
        directions, axis=1, keepdims=True
    )
    assert Anatomy(tuple(_nodule(20.0, 0.9, 0.0, False).parts())).attenuation_at(shell).any()
    assert not Anatomy(tuple(_nodule(20.0, 0.0, 0.0, False).parts())).attenuation_at(shell).any()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_findings_lie_in_aerated_lung_at_every_breath(seed: int) -> None:
    generator = np.random.default_rng(seed)
    thorax = _thorax(seed)
    nodule, opacity = draw_nodule(generator, thorax), draw_opacity(generator, thorax)
    for inspiration in (0.1, 0.6, 1.0):
        deeper = Thorax(thorax.patient, inspiration)
        places = np.array([nodule.position_mm, opacity.centre_mm])
        assert in_lungs(deeper, places).all()
    assert 12.0 <= nodule.diameter_mm <= 32.0
    assert nodule.upper_lobe == is_upper(thorax, nodule.position_mm)
    for part in opacity.parts(thorax):
        assert in_lungs(thorax, part.shape.pieces().centre).all()
    assert 1 <= len(opacity.parts(thorax)) <= opacity.patches


def test_places_reach_both_lungs_and_all_heights() -> None:
    places = np.array([draw_place(np.random.default_rng(seed), _thorax(seed), 12.0) for seed in range(80)])
    assert 20 < (places[:, 0] < 0).sum() < 60
    assert np.ptp(places[:, 2]) > 90


def test_both_malignant_and_benign_are_common() -> None:
    drawn = [draw_nodule(np.random.default_rng(seed), _thorax(seed)).malignant for seed in range(120)]
    assert 0.25 < np.mean(drawn) < 0.75


def test_labels_name_findings() -> None:
    thorax = _thorax(1)
    assert draw_finding("normal", np.random.default_rng(1), thorax) is None
    assert isinstance(draw_finding("nodule", np.random.default_rng(1), thorax), Nodule)
    assert isinstance(draw_finding("opacity", np.random.default_rng(1), thorax), Opacity)
