import numpy as np

from fedcad.simulations.phantom.patients import draw_patient
from fedcad.simulations.phantom.shapes import Bundle
from fedcad.simulations.phantom.thorax import Thorax
from fedcad.simulations.phantom.vessels import vessels


def _bundles(seed: int) -> list[Bundle]:
    thorax = Thorax(draw_patient(np.random.default_rng(seed)), 0.7)
    return [part.shape for part in vessels(thorax) if isinstance(part.shape, Bundle)]


def test_same_patient_same_vessels() -> None:
    for one, other in zip(_bundles(1), _bundles(1), strict=True):
        np.testing.assert_array_equal(one.points_mm, other.points_mm)
    assert not np.array_equal(_bundles(1)[1].points_mm, _bundles(2)[1].points_mm)


def test_branches_taper_and_start_on_their_parents() -> None:
    trunk, branch = _bundles(3)[:2]
    assert branch.radii_mm.max() < trunk.radii_mm.max()
    starts = branch.points_mm[:, 0]
    distance = np.abs(starts[:, None] - trunk.points_mm.reshape(-1, 3)[None]).sum(axis=2).min(axis=1)
    assert distance.max() == 0.0


def test_vessels_stay_in_the_chest() -> None:
    for seed in range(5):
        thorax = Thorax(draw_patient(np.random.default_rng(seed)), 0.7)
        for bundle in _bundles(seed):
            assert np.abs(bundle.points_mm[..., 0]).max() < thorax.half_width_mm + 12
            assert np.abs(bundle.points_mm[..., 1]).max() < thorax.half_depth_mm + 15
