"""Findings with ground truth: nodules with traits of malignancy, and patchy opacities.

What is drawn is recorded; every shape follows from the drawn values.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.phantom.anatomy import Part
from fedcad.simulations.phantom.shapes import Bundle, Ellipsoid, Floats, Vector
from fedcad.simulations.phantom.thorax import WATER_PER_MM, Thorax

Label = Literal["normal", "opacity", "nodule"]

MALIGNANT_FROM_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A round lesion inside a lung.

    Attributes:
        position_mm: Centre in patient coordinates.
        diameter_mm: Diameter of the core.
        density: Attenuation against that of water, added to the lung.
        spiculation: 0 is smooth, 1 is a star.
        lobulation: 0 is round, 1 is knobbly.
        upper_lobe: Whether the centre is in the upper two fifths of the lung's height.
        shape_seed: Seed of spicules and lobules.
    """

    position_mm: Vector
    diameter_mm: float
    density: float
    spiculation: float
    lobulation: float
    upper_lobe: bool
    shape_seed: int

    @property
    def malignancy_points(self) -> int:
        """Points that speak for cancer, 0 to 7.

        Size: 1 each from 14, 20 and 26 mm. Spiculation: 1 each from 0.35 and 0.65. Lobulation: 1 from 0.6.
        Upper lobe: 1.

        A rule of this phantom's own, with the signs that McWilliams et al. (2013), doi:10.1056/NEJMoa1214726,
        found to predict cancer: size, spiculation and an upper lobe.
        """
        size = sum(self.diameter_mm >= limit for limit in (14.0, 20.0, 26.0))
        spicules = sum(self.spiculation >= limit for limit in (0.35, 0.65))
        return size + spicules + int(self.lobulation >= 0.6) + int(self.upper_lobe)

    @property
    def malignant(self) -> bool:
        """True from :data:`MALIGNANT_FROM_POINTS` points on."""
        return self.malignancy_points >= MALIGNANT_FROM_POINTS

    def _spicules(self, generator: np.random.Generator) -> Part:
        """Return thin spokes from the core outwards."""
        count = 6 + int(14 * self.spiculation)
        heading = generator.standard_normal((count, 3))
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        radius = self.diameter_mm / 2.0
        reach = radius * (1.0 + self.spiculation * generator.uniform(0.4, 1.1, count))
        ends = np.stack([0.8 * radius * heading, reach[:, None] * heading], axis=1)
        widths = radius * generator.uniform(0.06, 0.13, count)
        return Part("nodule-spicules", Bundle(ends + self.position_mm, widths), self.density * WATER_PER_MM)

    def parts(self) -> list[Part]:
        """Return the core with its lobules and spicules."""
        generator = numpy_generator(self.shape_seed, "phantom-nodule")
        radius = self.diameter_mm / 2.0
        contrast = self.density * WATER_PER_MM
        stretch = generator.uniform(0.9, 1.1, 3)
        core = Ellipsoid(self.position_mm, _vector(radius * stretch / np.prod(stretch) ** (1 / 3)))
        parts = [Part("nodule-core", core, contrast)]
        for _ in range(round(4 * self.lobulation)):
            heading = generator.standard_normal(3)
            centre = np.array(self.position_mm) + 0.85 * radius * heading / np.linalg.norm(heading)
            lobe = Ellipsoid(_vector(centre), _vector(np.full(3, radius * generator.uniform(0.35, 0.55))))
            parts.append(Part("nodule-lobe", lobe, contrast, (core,)))
        if self.spiculation > 0.2:
            parts.append(self._spicules(generator))
        return parts


@dataclass(frozen=True, kw_only=True)
class Opacity:
    """A patchy, soft-edged consolidation or ground-glass opacity in one lung.

    Attributes:
        centre_mm: Middle of the patches in patient coordinates.
        spread_mm: Standard deviation of the patches' centres along x, y, z.
        patch_mm: Mean semi-axis of a patch.
        patches: Number of patches.
        density: Line integral's goal at the thickest place, unitless.
        grain: Relative amplitude of the texture within.
        softness_mm: Blur of the edges.
        shape_seed: Seed of the patches and their texture.
    """

    centre_mm: Vector
    spread_mm: Vector
    patch_mm: float
    patches: int
    density: float
    grain: float
    softness_mm: float
    shape_seed: int

    def parts(self, thorax: Thorax) -> list[Part]:
        """Return the patches, all of them centred inside the carved lung."""
        generator = numpy_generator(self.shape_seed, "phantom-opacity")
        centres = generator.standard_normal((4 * self.patches, 3)) * self.spread_mm + self.centre_mm
        centres = np.concatenate([np.array([self.centre_mm]), centres])
        aerated = in_lungs(thorax, centres)
        aerated[0] = True
        centres = centres[aerated][: self.patches]
        axes = self.patch_mm * generator.uniform(0.6, 1.5, centres.shape)
        contrast = 1.0 / (2.0 * self.patch_mm)
        return [
            Part("opacity", Ellipsoid(_vector(centre), _vector(semi_axes)), contrast)
            for centre, semi_axes in zip(centres, axes, strict=True)
        ]


Finding = Nodule | Opacity | None


def _vector(values: Floats) -> Vector:
    """Return three plain numbers."""
    return float(values[0]), float(values[1]), float(values[2])


def in_lungs(thorax: Thorax, points: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Say which points (N, 3) in mm are in aerated lung; shape (N,)."""
    inside = np.zeros(len(points), dtype=np.bool_)
    for lung in thorax.lungs():
        inside |= lung.contain(points)
    return inside


def draw_place(generator: np.random.Generator, thorax: Thorax, margin_mm: float) -> Vector:
    """Draw a point of a lung at least ``margin_mm`` from its outer surface, with lung before and behind it.

    Lung before and behind means that neither heart nor diaphragm hides the place in a frontal image.
    """
    lung = thorax.lung(-1 if generator.random() < 0.5 else 1)
    axes = np.array(lung.semi_axes_mm) - margin_mm
    heading = generator.standard_normal((256, 3))
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    places = np.array(lung.centre_mm) + axes * heading * generator.random((256, 1)) ** (1 / 3)
    side = np.sign(lung.centre_mm[0])
    clear = np.ones(len(places), dtype=np.bool_)
    # Towards the midline and down by the margin: there the heart, the hila and the diaphragm begin.
    for shift in ((0, -30, 0), (0, 30, 0), (-side * margin_mm, 0, 0), (0, 0, -margin_mm)):
        clear &= in_lungs(thorax, places + np.array(shift))
    clear &= in_lungs(thorax, places)
    found = places[clear]
    # 256 tries always leave some in the chests drawn here; a lung's middle third is aerated in any case.
    place = found[0] if len(found) else np.array([side * 0.62 * thorax.half_width_mm, 0.0, 20.0])
    return _vector(np.round(place, 3))


def is_upper(thorax: Thorax, place: Vector) -> bool:
    """Say whether a place is in the upper two fifths of the lungs' height above the domes."""
    lung, dome = thorax.lung(1), thorax.dome(1)
    top = lung.centre_mm[2] + lung.semi_axes_mm[2]
    bottom = dome.centre_mm[2] + dome.semi_axes_mm[2]
    return place[2] > top - 0.4 * (top - bottom)


def draw_nodule(generator: np.random.Generator, thorax: Thorax) -> Nodule:
    """Draw a nodule; spicules and lobules go with size, as in patients."""
    diameter = round(12.0 + 20.0 * float(generator.random()) ** 0.5, 3)
    larger = (diameter - 12.0) / 20.0
    place = draw_place(generator, thorax, 0.5 * diameter + 4.0)
    return Nodule(
        position_mm=place,
        diameter_mm=diameter,
        # Denser than soft tissue, so that a small network can learn it at 64 pixels from some hundred
        # patients; small nodules denser still, so that all sizes are about equally hard to see.
        density=round(float(generator.uniform(1.6, 2.4)) * (1.15 - 0.45 * larger), 4),
        spiculation=round(float(np.clip(generator.normal(0.25 + 0.35 * larger, 0.25), 0.0, 1.0)), 4),
        lobulation=round(float(generator.uniform(0.0, 1.0)), 4),
        upper_lobe=is_upper(thorax, place),
        shape_seed=int(generator.integers(2**62)),
    )


def draw_opacity(generator: np.random.Generator, thorax: Thorax) -> Opacity:
    """Draw an opacity between ground glass (faint, fine) and consolidation (denser, coarse)."""
    place = draw_place(generator, thorax, 16.0)
    solid = float(generator.random())
    spread = generator.uniform((20.0, 20.0, 30.0), (30.0, 32.0, 55.0))
    return Opacity(
        centre_mm=place,
        spread_mm=_vector(np.round(spread, 3)),
        patch_mm=round(float(generator.uniform(15.0, 24.0)), 3),
        patches=int(generator.integers(14, 23)),
        density=round(0.50 + 0.35 * solid + float(generator.uniform(0.0, 0.15)), 4),
        grain=round(float(generator.uniform(0.2, 0.45)), 4),
        softness_mm=round(6.0 - 2.5 * solid, 4),
        shape_seed=int(generator.integers(2**62)),
    )


def draw_finding(label: Label, generator: np.random.Generator, thorax: Thorax) -> Finding:
    """Draw the finding that a label names; None for ``normal``."""
    if label == "nodule":
        return draw_nodule(generator, thorax)
    return draw_opacity(generator, thorax) if label == "opacity" else None
