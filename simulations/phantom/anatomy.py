"""Anatomy as a list of parts in patient coordinates; the ground truth from which every image is made."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcad.simulations.phantom.projector import Beam, Image, carved_lengths, line_integrals
from fedcad.simulations.phantom.shapes import Floats, Shape


@dataclass(frozen=True)
class Part:
    """A region of space that adds to the attenuation.

    Attributes:
        name: What it is, for instance ``lung-right``; several parts may share a name.
        shape: The region.
        contrast_per_mm: Attenuation that the region adds to what is there; negative for air in tissue.
        without: Convex shapes carved out of a convex region, for instance the heart out of a lung.
    """

    name: str
    shape: Shape
    contrast_per_mm: float
    without: tuple[Shape, ...] = ()

    def contain(self, points: Floats) -> NDArray[np.bool_]:
        """Say which points (N, 3) in mm belong to the region; shape (N,)."""
        inside = self.shape.pieces().contain(points)
        for other in self.without:
            inside &= ~other.pieces().contain(points)
        return inside


@dataclass(frozen=True)
class Anatomy:
    """All parts of a body; the attenuation at a point is the sum over the parts that contain it."""

    parts: tuple[Part, ...]

    def named(self, prefix: str) -> "Anatomy":
        """Return the parts whose name starts with ``prefix``."""
        return Anatomy(tuple(part for part in self.parts if part.name.startswith(prefix)))

    def attenuation_at(self, points: Floats) -> Floats:
        """Return the linear attenuation in 1/mm at points (N, 3) in mm: a voxel phantom is one call away."""
        total = np.zeros(len(points))
        for part in self.parts:
            total += part.contrast_per_mm * part.contain(points)
        return total

    def project(self, beam: Beam) -> Image:
        """Return the line integral of the attenuation along every ray, shape (rows, columns)."""
        whole = [part for part in self.parts if not part.without]
        total = line_integrals([part.shape for part in whole], [part.contrast_per_mm for part in whole], beam)
        for part in self.parts:
            if part.without:
                total += np.float32(part.contrast_per_mm) * carved_lengths(part.shape, part.without, beam)
        return total
