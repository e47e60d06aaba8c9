import numpy as np

from fedcad.simulations.phantom.anatomy import Anatomy
from fedcad.simulations.phantom.patients import draw_patient
from fedcad.simulations.phantom.skeleton import CORTEX_PER_MM, MARROW_PER_MM, rib_course, ribs, skeleton
from fedcad.simulations.phantom.thorax import Thorax

THORAX = Thorax(draw_patient(np.random.default_rng(5)), 0.8)


def test_ribs_are_dense_outside_and_spongy_inside() -> None:
    course = rib_course(THORAX, 4, 1)
    anatomy, density = Anatomy(tuple(ribs(THORAX))), THORAX.patient.rib_density
    middle = (course[3] + course[4]) / 2
    along = course[4] - course[3]
    across = np.cross(along, [0.0, 0.0, 1.0])
    shell = middle + across / np.linalg.norm(across) * (5.6 * THORAX.patient.stature - 0.4)
    got = anatomy.attenuation_at(np.stack([middle, shell]))
    np.testing.assert_allclose(got, [MARROW_PER_MM * density, CORTEX_PER_MM * density])


def test_ribs_descend_from_back_to_front_and_mirror() -> None:
    right, left = rib_course(THORAX, 5, -1), rib_course(THORAX, 5, 1)
    np.testing.assert_allclose(right * [-1, 1, 1], left)
    assert left[0, 1] > 50 > -20 > left[-1, 1]
    assert left[0, 2] - left[-1, 2] > 30


def test_bones_never_take_attenuation_away() -> None:
    points = np.random.default_rng(0).uniform((-200, -120, -150), (200, 120, 150), (20000, 3))
    got = Anatomy(tuple(skeleton(THORAX))).attenuation_at(points)
    assert got.min() > -1e-12
    assert (got > 0).mean() > 0.01
