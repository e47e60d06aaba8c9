import numpy as np
import pytest

from fedcad.simulations.phantom.anatomy import Anatomy, Part
from fedcad.simulations.phantom.projector import Beam
from fedcad.simulations.phantom.shapes import Ellipsoid

BALL = Ellipsoid((0, 0, 0), (10, 10, 10))
HOLE = Ellipsoid((0, 0, 0), (4, 4, 4))


def test_attenuation_adds_up_and_holes_are_left_out() -> None:
    anatomy = Anatomy((Part("a", BALL, 2.0, (HOLE,)), Part("b", Ellipsoid((8, 0, 0), (5, 5, 5)), 3.0)))
    points = np.array([[0.0, 0, 0], [-6, 0, 0], [6, 0, 0], [12, 0, 0], [0, 0, 20]])
    assert anatomy.attenuation_at(points).tolist() == [0.0, 2.0, 5.0, 3.0, 0.0]


def test_projection_of_a_hollow_ball() -> None:
    beam = Beam(rows=1, columns=1, spacing_mm=1.0, source_to_detector_mm=None)
    assert Anatomy((Part("a", BALL, 0.5, (HOLE,)),)).project(beam)[0, 0] == pytest.approx(
        0.5 * (20 - 8), abs=1e-4
    )


def test_named_selects_by_prefix() -> None:
    anatomy = Anatomy((Part("lung-left", BALL, 1.0), Part("rib", BALL, 1.0)))
    assert [part.name for part in anatomy.named("lung").parts] == ["lung-left"]
