import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.phantom.shapes import Bundle, Ellipsoid, Shape, Slab, Tube, gather, rotation_about


def _volume(shape: Shape, step_mm: float = 1.0) -> float:
    """Volume by counting voxel centres."""
    axis = np.arange(-60.0, 60.0, step_mm) + step_mm / 2
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return float(shape.pieces().contain(points).sum() * step_mm**3)


def test_volumes_of_solids() -> None:
    ellipsoid = Ellipsoid((1.0, 2.0, 3.0), (20.0, 12.0, 30.0), (10.0, 20.0, 30.0))
    assert _volume(ellipsoid, 1.5) == pytest.approx(4 / 3 * np.pi * 20 * 12 * 30, rel=0.01)
    assert _volume(Slab((0.0, 1.0, 0.0), (20.0, 15.0), 18.0, axis=1), 1.5) == pytest.approx(
        np.pi * 300 * 18, rel=0.02
    )


def test_mitred_tube_has_the_volume_of_its_cylinders() -> None:
    # A mitre takes from one segment what it gives to the other: the volume is pi r^2 times the length.
    tube = Tube(((-40.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 40.0, 0.0), (10.0, 40.0, 38.0)), 8.0)
    length = 40.0 + 40.0 + float(np.hypot(10.0, 38.0))
    assert _volume(tube, 1.2) == pytest.approx(np.pi * 64.0 * length, rel=0.01)


def test_pieces_of_a_tube_do_not_overlap() -> None:
    tube = Tube(((-40.0, 0.0, 0.0), (0.0, 0.0, 0.0), (20.0, 30.0, 10.0)), 9.0)
    points = np.random.default_rng(0).uniform(-50, 50, (20000, 3))
    pieces = tube.pieces()
    counts = np.zeros(len(points), dtype=int)
    for segment in (Bundle(np.array([tube.points_mm]), np.array([9.0])).pieces(),):
        for index in range(len(segment)):
            one = type(segment)(*(getattr(segment, name)[[index]] for name in segment.__dataclass_fields__))
            counts += one.contain(points)
    assert counts.max() == 1
    assert np.array_equal(counts == 1, pieces.contain(points))


@given(turn=st.tuples(*[st.floats(-180, 180)] * 3), seed=st.integers(0, 100))
def test_bounding_box_encloses(turn: tuple[float, float, float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.uniform(-70, 70, (4000, 3))
    course = generator.uniform(-30, 30, (3, 3))
    for shape in (Ellipsoid((3.0, 4.0, 5.0), (30.0, 20.0, 40.0), turn), Tube(tuple(map(tuple, course)), 4.0)):
        pieces = shape.pieces()
        low = (pieces.centre - pieces.half_extent).min(axis=0) - 1e-6
        high = (pieces.centre + pieces.half_extent).max(axis=0) + 1e-6
        inside = points[pieces.contain(points)]
        assert (inside >= low).all() and (inside <= high).all()


def test_rotation_is_right_handed() -> None:
    assert rotation_about(2, 90.0) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert rotation_about(0, 90.0) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert rotation_about(1, 90.0) @ [0, 0, 1] == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_empty_shapes_are_refused(size: float) -> None:
    with pytest.raises(ValueError, match="above 0 mm"):
        Ellipsoid((0, 0, 0), (1.0, size, 1.0))
    with pytest.raises(ValueError, match="above 0 mm"):
        Slab((0, 0, 0), (1.0, 1.0), size)
    with pytest.raises(ValueError, match="above 0 mm"):
        Tube(((0, 0, 0), (1, 0, 0)), size)


def test_degenerate_tubes_are_refused() -> None:
    for points in (((0.0, 0.0, 0.0),), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))):
        with pytest.raises(ValueError, match="two points"):
            Tube(points, 1.0)


def test_gather_names_owners() -> None:
    pieces, owner = gather([Tube(((0, 0, 0), (9, 0, 0), (9, 9, 0)), 1.0), Ellipsoid((0, 0, 0), (1, 1, 1))])
    assert len(pieces) == 3
    assert owner.tolist() == [0, 0, 1]
