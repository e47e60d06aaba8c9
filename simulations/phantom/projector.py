"""Exact line integrals of simple shapes along the rays of a point source or a parallel beam.

A ray is p(t) = o + t d with d . (beam axis) = 1, and (o, d) are affine in the detector's coordinates
h = (1, u, v). For a quadric |M (p - c)| <= 1 with G = M^T M the chord's ends are (-b ± sqrt(D)) / a with

    a = d^T G d,   b = d^T G (o - c),   D = b^2 - a ((o - c)^T G (o - c) - 1).

Either o (point source) or d (parallel beam) is constant, so that D is a quadratic form h^T Q h. Q is
computed in float64 once per piece; evaluated in float32 around the piece's own centre it loses nothing to
cancellation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedcad.simulations.phantom.shapes import Floats, Pieces, Shape, gather, rotation_about

Image = NDArray[np.float32]
Bits = NDArray[np.intp]
View = Literal["PA", "AP"]

_SMALL_BOX = 64  # pixels; larger pieces are integrated one by one, smaller ones in batches
_TINY = np.float32(1e-20)
_FLAT = np.float32(1e-9)


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Source, detector and their pose against the patient.

    Attributes:
        rows: Rows of the detector.
        columns: Columns of the detector.
        spacing_mm: Distance of pixel centres on the detector.
        view: ``PA``: from back to front, detector at the front. ``AP``: the reverse. In both, the patient's
            right is on the image's left.
        source_to_detector_mm: Source-image distance; None for a parallel beam.
        detector_from_origin_mm: Distance from the origin of patient coordinates to the detector.
        rotation_deg: Turn of the patient about the body's axis (z) against the beam.
        centre_mm: Where the central ray passes the origin's plane: (to the left, to the head).
    """

    rows: int
    columns: int
    spacing_mm: float
    view: View = "PA"
    source_to_detector_mm: float | None = 1800.0
    detector_from_origin_mm: float = 150.0
    rotation_deg: float = 0.0
    centre_mm: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse beams whose source is inside the patient's half of the path."""
        distance = self.source_to_detector_mm
        if distance is not None and distance <= 2.0 * self.detector_from_origin_mm:
            raise ValueError(
                f"source_to_detector_mm is {distance}; expected more than twice detector_from_origin_mm "
                f"({self.detector_from_origin_mm}), so that the source is outside the patient"
            )

    @cached_property
    def _axes(self) -> tuple[Floats, Floats, Floats]:
        """Unit vectors in patient coordinates: columns, rows, beam."""
        turned = rotation_about(2, self.rotation_deg).T
        sign = -1.0 if self.view == "PA" else 1.0
        return (
            turned @ np.array([1.0, 0, 0]),
            turned @ np.array([0, 0, -1.0]),
            turned @ np.array([0, sign, 0]),
        )

    @cached_property
    def _centre(self) -> Floats:
        """Crossing of the central ray and the origin's plane, in patient coordinates."""
        left, up = self.centre_mm
        return self._axes[0] * left - self._axes[1] * up

    @cached_property
    def rays(self) -> tuple[Floats, Floats]:
        """O and D, each (3, 3): o = O (1, u, v) and d = D (1, u, v), with u, v in mm on the detector."""
        along_u, along_v, forward = self._axes
        zero = np.zeros(3)
        distance = self.source_to_detector_mm
        if distance is None:
            return np.stack([self._centre, along_u, along_v], 1), np.stack([forward, zero, zero], 1)
        source = self._centre - (distance - self.detector_from_origin_mm) * forward
        directions = np.stack([forward, along_u / distance, along_v / distance], 1)
        return np.stack([source, zero, zero], 1), directions

    def detector_mm(self, points: Floats) -> Floats:
        """Project points (..., 3) in patient coordinates to detector coordinates (..., 2) as (u, v) in mm."""
        along_u, along_v, forward = self._axes
        relative = np.asarray(points, dtype=np.float64) - self._centre
        flat = np.stack([relative @ along_u, relative @ along_v], axis=-1)
        distance = self.source_to_detector_mm
        if distance is None:
            return flat
        depth = distance - self.detector_from_origin_mm + relative @ forward
        return np.asarray(flat * (distance / depth)[..., None])

    def pixels(self, points: Floats) -> Floats:
        """Project points (..., 3) to fractional pixel positions (..., 2) as (row, column)."""
        middle = np.array([(self.rows - 1) / 2.0, (self.columns - 1) / 2.0])
        return np.asarray(self.detector_mm(points)[..., ::-1] / self.spacing_mm + middle)

    def magnification_at(self, point: Floats) -> float:
        """Return how much larger than life a small thing at ``point`` (3,) appears on the detector."""
        distance = self.source_to_detector_mm
        if distance is None:
            return 1.0
        depth = distance - self.detector_from_origin_mm + float((point - self._centre) @ self._axes[2])
        return float(distance / depth)

    @cached_property
    def obliquity(self) -> Image:
        """Millimetres of path per unit of t for every pixel, shape (rows, columns)."""
        if self.source_to_detector_mm is None:
            return np.ones((self.rows, self.columns), dtype=np.float32)
        u = (
            (np.arange(self.columns) - (self.columns - 1) / 2.0)
            * self.spacing_mm
            / self.source_to_detector_mm
        )
        v = (np.arange(self.rows) - (self.rows - 1) / 2.0) * self.spacing_mm / self.source_to_detector_mm
        return np.sqrt(1.0 + u[None, :] ** 2 + v[:, None] ** 2).astype(np.float32)


@dataclass(frozen=True)
class _Boxes:
    """One box of equal size for each of S pieces: first row, first column (S,), and the common size."""

    row: Bits
    column: Bits
    height: int
    width: int


def _footprints(pieces: Pieces, beam: Beam) -> tuple[Bits, Bits]:
    """Return first and last (row, column) that each piece can touch, each (S, 2), clipped to the detector."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    corners = pieces.centre[:, None] + signs * pieces.half_extent[:, None]
    pixels = beam.pixels(corners)
    limit = np.array([beam.rows, beam.columns])
    first = np.clip(np.floor(pixels.min(axis=1)).astype(np.intp), 0, limit)
    last = np.clip(np.ceil(pixels.max(axis=1)).astype(np.intp) + 1, 0, limit)
    return first, last


def _form(values: Floats, u: Image, v: Image) -> Image:
    """Evaluate h^T Q h for symmetric Q (S, 3, 3) on u (S, 1, w) and v (S, h, 1)."""
    q = values.astype(np.float32)[:, :, :, None, None]
    across = q[:, 0, 0] + u * (2 * q[:, 0, 1] + u * q[:, 1, 1])
    down = v * (2 * q[:, 0, 2] + v * q[:, 2, 2])
    form = (2 * q[:, 1, 2] * v) * u
    form += across
    form += down
    return form


def _line(values: Floats, u: Image, v: Image) -> Image:
    """Evaluate q^T h for q (S, 3) on u (S, 1, w) and v (S, h, 1)."""
    q = values.astype(np.float32)[:, :, None, None]
    line: Image = (q[:, 0] + q[:, 1] * u) + q[:, 2] * v
    return line


def _outer(left: Floats, right: Floats) -> Floats:
    """Return outer products (S, 3, 3)."""
    return np.asarray(left[:, :, None] * right[:, None, :])


@dataclass(frozen=True)
class _Local:
    """Rays and detector coordinates around the middle of each box."""

    origin: Floats  # (S, 3, 3): o - c = origin (1, u, v)
    direction: Floats  # (S, 3, 3)
    u: Image  # (S, 1, w)
    v: Image  # (S, h, 1)


def _localise(pieces: Pieces, beam: Beam, boxes: _Boxes) -> _Local:
    """Shift u and v to the middle of each box, which keeps float32 accurate."""
    middle_row = boxes.row + (boxes.height - 1) / 2.0
    middle_column = boxes.column + (boxes.width - 1) / 2.0
    shift = np.tile(np.eye(3), (len(pieces), 1, 1))
    shift[:, 1, 0] = (middle_column - (beam.columns - 1) / 2.0) * beam.spacing_mm
    shift[:, 2, 0] = (middle_row - (beam.rows - 1) / 2.0) * beam.spacing_mm
    origins, directions = beam.rays
    origin = origins @ shift
    origin[:, :, 0] -= pieces.centre
    u = ((np.arange(boxes.width) - (boxes.width - 1) / 2.0) * beam.spacing_mm).astype(np.float32)
    v = ((np.arange(boxes.height) - (boxes.height - 1) / 2.0) * beam.spacing_mm).astype(np.float32)
    return _Local(origin, directions @ shift, u[None, None, :], v[None, :, None])


def _quadric(pieces: Pieces, beam: Beam, local: _Local) -> tuple[Image, Image]:
    """Return middle and half length (negative: missed) of each chord in t, shape (S, h, w)."""
    scaled_o, scaled_d = pieces.matrix @ local.origin, pieces.matrix @ local.direction
    if beam.source_to_detector_mm is None:
        a = np.sum(scaled_d[:, :, 0] ** 2, axis=1)
        b = np.einsum("si,sij->sj", scaled_d[:, :, 0], scaled_o)
        c = np.einsum("sij,sik->sjk", scaled_o, scaled_o)
        c[:, 0, 0] -= 1.0
        discriminant = _outer(b, b) - a[:, None, None] * c
        slope = np.broadcast_to(a[:, None, None].astype(np.float32), (len(pieces), 1, 1))
    else:
        b = np.einsum("si,sij->sj", scaled_o[:, :, 0], scaled_d)
        squares = np.einsum("sij,sik->sjk", scaled_d, scaled_d)
        c0 = np.sum(scaled_o[:, :, 0] ** 2, axis=1) - 1.0
        discriminant = _outer(b, b) - c0[:, None, None] * squares
        slope = _form(squares, local.u, local.v)
    inverse = 1.0 / np.maximum(slope, _TINY)
    root = _form(discriminant, local.u, local.v)
    half = np.sqrt(np.maximum(root, 0.0)) * inverse
    half[root < 0.0] = -1.0
    return _line(-b, local.u, local.v) * inverse, half


def _chords(pieces: Pieces, beam: Beam, boxes: _Boxes) -> tuple[Image, Image]:
    """Return where each ray enters and leaves each piece, in t; leaving before entering means missed."""
    local = _localise(pieces, beam, boxes)
    middle, half = _quadric(pieces, beam, local)
    enter, leave = middle - half, middle + half
    for plane in range(2):
        normal = pieces.normals[:, plane]
        if not normal.any():
            continue
        slope = _line(np.einsum("si,sij->sj", normal, local.direction), local.u, local.v)
        reach = np.einsum("si,sij->sj", -normal, local.origin)
        reach[:, 0] += pieces.offsets[:, plane]
        # A ray along the plane crosses it beyond all bounds, on the side that keeps or drops the whole ray.
        slope = np.where(np.abs(slope) < _FLAT, _FLAT, slope)
        crossing = _line(reach, local.u, local.v) / slope
        forward = slope > 0
        leave = np.minimum(leave, np.where(forward, crossing, np.float32(np.inf)))
        enter = np.maximum(enter, np.where(forward, np.float32(-np.inf), crossing))
    return enter, leave


def _batches(pieces: Pieces, beam: Beam) -> Iterator[tuple[Bits, _Boxes]]:
    """Group pieces by the size of their footprint; yield indices and boxes inside the detector."""
    first, last = _footprints(pieces, beam)
    extent = last - first
    size = extent.max(axis=1)
    seen = (extent > 0).all(axis=1)
    # Classes of height and width, each twice as large as the one before, let pieces of like size share boxes.
    classes = np.ceil(np.log(np.maximum(extent, 4) / 4.0) / np.log(2.0)).astype(np.intp)
    key = np.where(seen & (size <= _SMALL_BOX), classes[:, 0] * 100 + classes[:, 1], -1)
    for value in np.unique(key[key >= 0]):
        inside = np.flatnonzero(key == value)
        height, width = (int(n) for n in extent[inside].max(axis=0))
        row = np.minimum(first[inside, 0], beam.rows - height)
        column = np.minimum(first[inside, 1], beam.columns - width)
        yield inside, _Boxes(row, column, height, width)
    for index in np.flatnonzero(seen & (size > _SMALL_BOX)):
        height, width = (int(n) for n in last[index] - first[index])
        yield np.array([index]), _Boxes(first[[index], 0], first[[index], 1], height, width)


def _take(pieces: Pieces, index: Bits) -> Pieces:
    """Return some of the pieces."""
    fields = (pieces.matrix, pieces.centre, pieces.normals, pieces.offsets, pieces.half_extent)
    return Pieces(*(values[index] for values in fields))


def line_integrals(shapes: list[Shape], contrasts: list[float], beam: Beam) -> Image:
    """Integrate the sum of contrast x indicator over every ray; shapes may overlap and then add up.

    Args:
        shapes: Shapes in patient coordinates.
        contrasts: Attenuation of each shape, 1/mm.
        beam: Rays; one per pixel, through its centre.

    Returns:
        Line integrals, shape (rows, columns), unitless.
    """
    if not shapes:
        return np.zeros((beam.rows, beam.columns), dtype=np.float32)
    total = np.zeros((beam.rows, beam.columns))
    pieces, owner = gather(shapes)
    contrast = np.asarray(contrasts, dtype=np.float32)[owner]
    places, values = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.float32)]
    for index, boxes in _batches(pieces, beam):
        enter, leave = _chords(_take(pieces, index), beam, boxes)
        length = np.maximum(leave - enter, 0.0) * contrast[index][:, None, None]
        if len(index) == 1:
            row, column = int(boxes.row[0]), int(boxes.column[0])
            total[row : row + boxes.height, column : column + boxes.width] += length[0]
            continue
        rows = boxes.row[:, None] + np.arange(boxes.height)
        columns = boxes.column[:, None] + np.arange(boxes.width)
        places.append((rows[:, :, None] * beam.columns + columns[:, None, :]).ravel())
        values.append(length.ravel())
    scattered = np.bincount(np.concatenate(places), np.concatenate(values), minlength=total.size)
    return (total + scattered.reshape(total.shape)).astype(np.float32) * beam.obliquity


def _union_length(intervals: list[tuple[Image, Image]], within: tuple[Image, Image]) -> Image:
    """Return the length of a union of intervals inside another, by inclusion and exclusion.

    |A1 u A2 u ...| = sum_i (|A_i| - |A_i n (A_{i+1} u ...)|); empty intersections end the recursion early.
    """
    total = np.zeros_like(within[0])
    for place, (begin, end) in enumerate(intervals):
        common = np.maximum(begin, within[0]), np.minimum(end, within[1])
        length = np.maximum(common[1] - common[0], 0.0)
        if length.any():
            total += length - _union_length(intervals[place + 1 :], common)
    return total


def carved_lengths(shape: Shape, without: tuple[Shape, ...], beam: Beam) -> Image:
    """Return each ray's length in mm inside a convex shape but outside all others, shape (rows, columns).

    Intersections of convex shapes are intervals on a ray, so the length inside the union of the others
    follows from inclusion and exclusion.

    Raises:
        ValueError: A shape has several pieces.
    """
    solid = shape.pieces()
    result = np.zeros((beam.rows, beam.columns), dtype=np.float32)
    first, last = _footprints(solid, beam)
    height, width = (int(n) for n in (last - first)[0])
    if len(solid) != 1 or any(len(other.pieces()) != 1 for other in without):
        raise ValueError("carved_lengths takes convex shapes only (one piece each); got a shape of several")
    if height <= 0 or width <= 0:
        return result
    boxes = _Boxes(first[:, 0], first[:, 1], height, width)
    enter, leave = _chords(solid, beam, boxes)
    others = [_chords(other.pieces(), beam, boxes) for other in without]
    length = np.maximum(leave - enter, 0.0) - _union_length(others, (enter, leave))
    top, left = int(first[0, 0]), int(first[0, 1])
    result[top : top + height, left : left + width] = length[0]
    return result * beam.obliquity
