"""Vessels of the lungs: tapering branches from the hila, drawn from the patient's own seed."""

import numpy as np

from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.phantom.anatomy import Part
from fedcad.simulations.phantom.shapes import Bundle, Ellipsoid, Floats
from fedcad.simulations.phantom.thorax import SIDES, WATER_PER_MM, Thorax

_CONTRAST = 0.55 * WATER_PER_MM  # blood against aerated lung
_STEPS = 3  # straight pieces of a branch
_GENERATIONS = 3
_WANDER = (0.20, 0.10, 0.20)  # little along the beam, where vessels would show as bright dots
_CHILDREN = 2
_FORK = (0.5, 0.3, 0.5)


def _unit(vectors: Floats) -> Floats:
    """Scale vectors (..., 3) to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _courses(
    generator: np.random.Generator, starts: Floats, headings: Floats, step_mm: float, lung: Ellipsoid
) -> Floats:
    """Let B branches wander on, bent back near the lung's surface; points (B, steps + 1, 3) in mm."""
    centre, semi_axes = np.array(lung.centre_mm), np.array(lung.semi_axes_mm)
    points, wander = [starts], generator.normal(0.0, _WANDER, (_STEPS, len(starts), 3))
    for step in range(_STEPS):
        relative = (points[-1] - centre) / semi_axes
        near = np.clip(np.sum(relative**2, axis=1, keepdims=True) - 0.62, 0.0, 1.0)
        headings = _unit(headings + wander[step] - 2.0 * near * relative)
        points.append(points[-1] + step_mm * headings)
    return np.stack(points, axis=1)


def _tree(generator: np.random.Generator, thorax: Thorax, side: int) -> list[Part]:
    """Return one lung's vessels, one part per generation of branches."""
    lung, stature = thorax.lung(side), thorax.patient.stature
    count = thorax.patient.vessel_count
    angle = np.linspace(-1.35, 1.25, count) + generator.normal(0.0, 0.10, count)
    headings = np.stack([side * np.cos(angle), generator.normal(0.0, 0.35, count), np.sin(angle)], axis=1)
    starts = np.array([side * 36.0 * stature, 8.0, 6.0]) + 12.0 * headings
    radii, step_mm, parts = generator.uniform(2.4, 3.7, count), 28.0 * stature, []
    for _ in range(_GENERATIONS):
        points = _courses(generator, starts, headings, step_mm, lung)
        parts.append(Part("vessel", Bundle(points, radii), _CONTRAST))
        parent = np.repeat(np.arange(len(points)), _CHILDREN)
        fork = generator.integers(1, _STEPS + 1, len(parent))
        headings = _unit(points[parent, -1] - points[parent, 0]) + generator.normal(
            0.0, _FORK, (len(parent), 3)
        )
        starts, radii, step_mm = points[parent, fork], radii[parent] * 0.62, step_mm * 0.68
    return parts


def vessels(thorax: Thorax) -> list[Part]:
    """Return the vessel trees of both lungs and the hila that they leave from."""
    generator = numpy_generator(thorax.patient.anatomy_seed, "phantom-vessels")
    parts: list[Part] = []
    for side in SIDES:
        middle, rise = side * 37.0 * thorax.patient.stature, 6.0 if side > 0 else 0.0
        for outward, z in ((0.0, 13.0), (6.0, -2.0), (3.0, -18.0)):
            hilum = Ellipsoid((middle + side * outward, 8.0, z + rise), (9.0, 13.0, 13.0), (0, side * 15, 0))
            parts.append(Part("hilum", hilum, 0.4 * _CONTRAST))
        parts += _tree(generator, thorax, side)
    return parts
