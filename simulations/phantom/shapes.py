"""Simple 3D shapes in patient coordinates, the alphabet of every phantom.

Coordinates are DICOM's patient coordinates (PS3.3 C.7.6.2.1.1, "LPS") in millimetres: x grows to the
patient's left, y to the back, z to the head. Every shape is a set of convex pieces of one form, a quadric
cut by two planes, so that one routine integrates all of them along rays and another fills voxels with them:

    |M (p - c)| <= 1   and   n_j . (p - c) <= k_j   for j = 0, 1
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vector = tuple[float, float, float]

_UNCUT = 1.0  # with a zero normal, 0 <= 1 holds everywhere: no cut
_ENDLESS_MM = (
    1e5  # a cylinder's third semi-axis: rank 3 lets rays run along it, at an error of (length / 1e5)^2
)


@dataclass(frozen=True)
class Pieces:
    """S convex pieces, each a quadric cut by two planes.

    Attributes:
        matrix: M, shape (S, 3, 3), 1/mm; of full rank (a cylinder is a very long ellipsoid, cut).
        centre: c, shape (S, 3), mm.
        normals: n_j, shape (S, 2, 3); zero where nothing is cut.
        offsets: k_j, shape (S, 2), mm.
        half_extent: Half edges of an enclosing box with the axes of the patient, shape (S, 3), mm.
    """

    matrix: Floats
    centre: Floats
    normals: Floats
    offsets: Floats
    half_extent: Floats

    def __len__(self) -> int:
        """Return S."""
        return len(self.centre)

    def contain(self, points: Floats) -> NDArray[np.bool_]:
        """Say which points (N, 3) in mm lie in any piece; shape (N,)."""
        inside = np.zeros(len(points), dtype=np.bool_)
        for index in range(len(self)):
            relative = points - self.centre[index]
            quadric = np.sum((relative @ self.matrix[index].T) ** 2, axis=1) <= 1.0
            planes = relative @ self.normals[index].T <= self.offsets[index]
            inside |= quadric & planes.all(axis=1)
        return inside


class Shape(Protocol):
    """Anything that is made of pieces."""

    def pieces(self) -> Pieces:
        """Return the convex pieces, which do not overlap."""
        ...


def rotation_about(axis: int, degrees: float) -> Floats:
    """Return the right-handed rotation matrix (3, 3) about coordinate axis 0, 1 or 2."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def _positive(values: tuple[float, ...], what: str) -> None:
    """Refuse sizes that no solid can have."""
    if not all(np.isfinite(value) and value > 0.0 for value in values):
        raise ValueError(f"{what} is {values}; every size must be finite and above 0 mm")


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid.

    Attributes:
        centre_mm: Centre.
        semi_axes_mm: Semi-axes along x, y, z before turning.
        turn_deg: Turns about x, then y, then z, in degrees.
    """

    centre_mm: Vector
    semi_axes_mm: Vector
    turn_deg: Vector = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse empty ellipsoids."""
        _positive(self.semi_axes_mm, "Ellipsoid.semi_axes_mm")

    def pieces(self) -> Pieces:
        """Return the one piece."""
        turn = np.eye(3)
        for axis in range(3):
            if self.turn_deg[axis] != 0.0:
                turn = rotation_about(axis, self.turn_deg[axis]) @ turn
        semi_axes = np.array(self.semi_axes_mm)
        # Half extent along e is |diag(semi axes) R^T e|.
        half = np.linalg.norm(turn * semi_axes, axis=1)
        return Pieces(
            (turn / semi_axes).T[None],
            np.array([self.centre_mm]),
            np.zeros((1, 2, 3)),
            np.full((1, 2), _UNCUT),
            half[None],
        )


@dataclass(frozen=True)
class Slab:
    """A flat elliptic plate: an elliptic cylinder between two parallel planes.

    Attributes:
        centre_mm: Centre.
        semi_axes_mm: Semi-axes along the two coordinate axes other than ``axis``, in ascending order of axis.
        thickness_mm: Distance of the planes.
        axis: Coordinate axis that the plate is perpendicular to: 0, 1 or 2.
    """

    centre_mm: Vector
    semi_axes_mm: tuple[float, float]
    thickness_mm: float
    axis: int = 2

    def __post_init__(self) -> None:
        """Refuse empty plates."""
        _positive((*self.semi_axes_mm, self.thickness_mm), "Slab size")

    def pieces(self) -> Pieces:
        """Return the one piece."""
        others = [axis for axis in range(3) if axis != self.axis]
        matrix, half, normals = np.zeros((3, 3)), np.empty(3), np.zeros((2, 3))
        for other, semi_axis in zip(others, self.semi_axes_mm, strict=True):
            matrix[other, other], half[other] = 1.0 / semi_axis, semi_axis
        matrix[self.axis, self.axis], half[self.axis] = 1.0 / _ENDLESS_MM, self.thickness_mm / 2.0
        normals[:, self.axis] = (1.0, -1.0)
        offsets = np.full((1, 2), self.thickness_mm / 2.0)
        return Pieces(matrix[None], np.array([self.centre_mm]), normals[None], offsets, half[None])


@dataclass(frozen=True)
class Tube:
    """A solid tube of constant radius along a polyline, with flat ends and mitred joints.

    Two cylinders of one radius meet in the plane that halves their angle, in the same ellipse from both
    sides, so that mitred segments neither overlap nor gape.

    Attributes:
        points_mm: Points of the polyline, at least two, none repeated in a row.
        radius_mm: Radius.
    """

    points_mm: tuple[Vector, ...]
    radius_mm: float

    def __post_init__(self) -> None:
        """Refuse empty tubes."""
        _positive((self.radius_mm,), "Tube.radius_mm")
        if len(self.points_mm) < 2 or any(a == b for a, b in pairwise(self.points_mm)):
            raise ValueError("Tube.points_mm needs two points or more, no point repeated in a row")

    def pieces(self) -> Pieces:
        """Return one cut cylinder per segment."""
        return Bundle(np.array([self.points_mm]), np.array([self.radius_mm])).pieces()


@dataclass(frozen=True, eq=False)
class Bundle:
    """Many tubes with equally many points each, as :class:`Tube` but computed together.

    Attributes:
        points_mm: Points of the polylines, shape (tubes, points, 3).
        radii_mm: Radius of each tube, shape (tubes,).
    """

    points_mm: Floats
    radii_mm: Floats

    def pieces(self) -> Pieces:
        """Return one cut cylinder per segment."""
        points = self.points_mm
        steps = np.diff(points, axis=1)
        units = steps / np.linalg.norm(steps, axis=2, keepdims=True)
        mitres = np.concatenate([units[:, :1], units[:, :-1] + units[:, 1:], units[:, -1:]], axis=1)
        centre = (points[:, :-1] + points[:, 1:]) / 2.0
        normals = np.stack([-mitres[:, :-1], mitres[:, 1:]], axis=2)
        ends = np.stack([points[:, :-1], points[:, 1:]], axis=2) - centre[:, :, None]
        along = units[..., :, None] * units[..., None, :]
        radii = self.radii_mm[:, None, None]
        # (I - u u^T) / r measures the distance from the axis in radii.
        matrix = (np.eye(3) - along) / radii[..., None] + along / _ENDLESS_MM
        # A mitre reaches r tan(bend / 2) past the end; |u + w| = 2 cos(bend / 2) for units u, w.
        cosine = np.linalg.norm(mitres[:, 1:-1], axis=2) / 2.0
        tangent = np.pad(np.sqrt(1.0 / np.clip(cosine, 0.05, 1.0) ** 2 - 1.0), ((0, 0), (1, 1)))
        past = radii * np.maximum(tangent[:, :-1], tangent[:, 1:])[..., None]
        half = np.abs(steps) / 2.0 + past * np.abs(units) + radii * np.sqrt(np.clip(1.0 - units**2, 0.0, 1.0))
        return Pieces(
            matrix.reshape(-1, 3, 3),
            centre.reshape(-1, 3),
            normals.reshape(-1, 2, 3),
            np.sum(normals * ends, axis=3).reshape(-1, 2),
            half.reshape(-1, 3),
        )


def gather(shapes: list[Shape]) -> tuple[Pieces, NDArray[np.intp]]:
    """Join the pieces of several shapes; also return the index of each piece's shape, shape (S,)."""
    all_pieces = [shape.pieces() for shape in shapes]
    owner = np.repeat(np.arange(len(shapes)), [len(pieces) for pieces in all_pieces])
    joined = Pieces(
        np.concatenate([pieces.matrix for pieces in all_pieces]),
        np.concatenate([pieces.centre for pieces in all_pieces]),
        np.concatenate([pieces.normals for pieces in all_pieces]),
        np.concatenate([pieces.offsets for pieces in all_pieces]),
        np.concatenate([pieces.half_extent for pieces in all_pieces]),
    )
    return joined, owner
