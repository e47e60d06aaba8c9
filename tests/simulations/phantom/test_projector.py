import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.projector import Beam, Image, carved_lengths, line_integrals
from fedcad.simulations.phantom.shapes import Ellipsoid, Shape, Slab, Tube

SHAPES: list[Shape] = [
    Ellipsoid((10.0, 20.0, 30.0), (40.0, 60.0, 30.0), (10.0, 20.0, 30.0)),
    Slab((-30.0, 0.0, 10.0), (20.0, 35.0), 50.0, 2),
    Slab((-30.0, 0.0, 10.0), (20.0, 35.0), 50.0, 1),
    Tube(((-60.0, 0.0, 0.0), (-20.0, 30.0, 20.0), (10.0, 10.0, 60.0), (60.0, -20.0, 40.0)), 12.0),
    Tube(((0.0, -40.0, 0.0), (0.0, 40.0, 0.0)), 15.0),  # along a parallel beam
]
STEP_MM = 0.25


def _numerically(inside: object, beam: Beam) -> Image:
    """Count steps inside along each ray."""
    origins, directions = beam.rays
    offset = (
        0.0
        if beam.source_to_detector_mm is None
        else beam.source_to_detector_mm - beam.detector_from_origin_mm
    )
    t = np.arange(-130.0, 130.0, STEP_MM) + offset
    image = np.zeros((beam.rows, beam.columns), dtype=np.float32)
    for row in range(beam.rows):
        for column in range(beam.columns):
            u = (column - (beam.columns - 1) / 2) * beam.spacing_mm
            v = (row - (beam.rows - 1) / 2) * beam.spacing_mm
            origin, direction = origins @ [1, u, v], directions @ [1, u, v]
            length = STEP_MM * np.linalg.norm(direction)
            image[row, column] = inside(origin + t[:, None] * direction).sum() * length  # type: ignore[operator]
    return image


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
@pytest.mark.parametrize(
    "pose",
    [
        {"source_to_detector_mm": None},
        {"source_to_detector_mm": 1200.0, "rotation_deg": 7.0, "view": "AP", "centre_mm": (5.0, -3.0)},
        {"source_to_detector_mm": 1800.0},
    ],
    ids=["parallel", "AP turned", "PA"],
)
def test_analytic_equals_numerical_integration(shape: Shape, pose: dict[str, object]) -> None:
    beam = Beam(rows=15, columns=18, spacing_mm=13.0, **pose)  # type: ignore[arg-type]
    got = line_integrals([shape], [1.0], beam)
    assert got.max() > 20.0
    np.testing.assert_allclose(got, _numerically(shape.pieces().contain, beam), atol=2.5 * STEP_MM)


def test_carved_length_equals_numerical_integration() -> None:
    body = SHAPES[0]
    holes = (SHAPES[1], Ellipsoid((0, 0, 20), (30, 30, 30)), Ellipsoid((20, 0, 50), (30, 30, 30)))
    beam = Beam(rows=15, columns=18, spacing_mm=13.0, rotation_deg=-5.0)

    def inside(points: np.ndarray) -> np.ndarray:
        kept = body.pieces().contain(points)
        for hole in holes:
            kept &= ~hole.pieces().contain(points)
        return kept

    got = carved_lengths(body, holes, beam)
    assert got.max() > 20.0
    np.testing.assert_allclose(got, _numerically(inside, beam), atol=4 * STEP_MM)


def test_hand_worked_sphere() -> None:
    # Parallel rays at distance 0, 6 and 10 from the centre of a sphere of radius 10: chords 20, 16 and 0.
    beam = Beam(rows=1, columns=5, spacing_mm=6.0, source_to_detector_mm=None)
    got = line_integrals([Ellipsoid((0, 0, 0), (10, 10, 10))], [0.5], beam)
    assert got[0] == pytest.approx([0.0, 8.0, 10.0, 8.0, 0.0], abs=1e-4)


def test_thin_tube_far_from_the_middle_keeps_its_chord() -> None:
    # Float32 would lose a 1 mm vessel 180 mm off-axis if rays were not taken around the piece itself.
    beam = Beam(rows=401, columns=401, spacing_mm=1.0, source_to_detector_mm=None)
    got = line_integrals([Tube(((180.0, 0.0, -190.0), (180.0, 0.0, 190.0)), 0.5)], [1.0], beam)
    assert got[200, 380] == pytest.approx(1.0, abs=1e-3)


@given(seed=st.integers(0, 10**6), parts=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_batching_does_not_change_sums(seed: int, parts: int) -> None:
    generator = np.random.default_rng(seed)
    beam = Beam(rows=90, columns=110, spacing_mm=3.0, rotation_deg=3.0)
    shapes: list[Shape] = [
        Ellipsoid(tuple(generator.uniform(-150, 150, 3)), tuple(generator.uniform(1, 130, 3)))
        for _ in range(parts)
    ]
    contrasts = list(generator.uniform(-1, 1, parts))
    apart = sum(line_integrals([s], [c], beam).astype(float) for s, c in zip(shapes, contrasts, strict=True))
    np.testing.assert_allclose(line_integrals(shapes, contrasts, beam), apart, atol=0.02)
    alone = np.stack([carved_lengths(shape, (), beam) for shape in shapes])
    np.testing.assert_allclose(
        alone[0] * contrasts[0], line_integrals(shapes[:1], contrasts[:1], beam), atol=0.02
    )


@given(
    point=st.tuples(*[st.floats(-100, 100)] * 3),
    turn=st.floats(-20, 20),
    view=st.sampled_from(["PA", "AP"]),
    parallel=st.booleans(),
)
def test_projected_point_lies_on_its_ray(
    point: tuple[float, ...], turn: float, view: str, parallel: bool
) -> None:
    distance = None if parallel else 1500.0
    beam = Beam(
        rows=64, columns=80, spacing_mm=5.0, rotation_deg=turn, view=view, source_to_detector_mm=distance,  # type: ignore[arg-type]
        centre_mm=(7.0, -9.0),
    )  # fmt: skip
    u, v = beam.detector_mm(np.array(point))
    origins, directions = beam.rays
    origin, direction = origins @ [1, u, v], directions @ [1, u, v]
    across = np.cross(np.array(point) - origin, direction / np.linalg.norm(direction))
    assert np.linalg.norm(across) < 1e-6


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_right_is_on_the_left_and_head_on_top(view: str) -> None:
    beam = Beam(rows=100, columns=100, spacing_mm=4.0, view=view)  # type: ignore[arg-type]
    row, column = beam.pixels(np.array([-80.0, 0.0, 90.0]))
    assert row < 40 and column < 40


def test_magnification_hand_worked() -> None:
    # PA: the detector is 150 mm in front of the origin, the source 1650 mm behind it; at y = -50 the ray has
    # gone 1700 of 1800 mm.
    beam = Beam(rows=10, columns=10, spacing_mm=1.0)
    assert beam.magnification_at(np.array([0.0, -50.0, 0.0])) == pytest.approx(1800 / 1700)
    assert (
        Beam(rows=2, columns=2, spacing_mm=1.0, source_to_detector_mm=None).magnification_at(np.zeros(3))
        == 1.0
    )


def test_nothing_and_out_of_sight_are_zero() -> None:
    beam = Beam(rows=8, columns=9, spacing_mm=1.0)
    far = Ellipsoid((900.0, 0.0, 0.0), (5.0, 5.0, 5.0))
    assert not line_integrals([], [], beam).any()
    assert not line_integrals([far], [1.0], beam).any()
    assert not carved_lengths(far, (), beam).any()


def test_hostile_arguments() -> None:
    with pytest.raises(ValueError, match="outside the patient"):
        Beam(rows=8, columns=8, spacing_mm=1.0, source_to_detector_mm=200.0)
    with pytest.raises(ValueError, match="one piece each"):
        carved_lengths(SHAPES[3], (), Beam(rows=8, columns=8, spacing_mm=9.0))
