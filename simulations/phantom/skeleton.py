"""Bones of the chest: ribs, clavicles, spine, shoulder blades and the heads of the upper arms."""

import numpy as np

from fedcad.simulations.phantom.anatomy import Part
from fedcad.simulations.phantom.shapes import Bundle, Ellipsoid, Floats, Shape, Slab
from fedcad.simulations.phantom.thorax import SIDES, Thorax

CORTEX_PER_MM = 0.016  # added to soft tissue; dense shell
MARROW_PER_MM = 0.0045  # added to soft tissue; spongy core
_RIBS = 10
_FIRST_RIB_MM = 128.0


def _bones(
    name: str, points: list[Floats], *, radii_mm: list[float], shell_mm: float, density: float
) -> list[Part]:
    """Return long bones with equally many points (P, 3) each: dense, less what their cores lack."""
    courses, radii = np.stack(points), np.array(radii_mm)
    core = (MARROW_PER_MM - CORTEX_PER_MM) * density
    return [
        Part(name, Bundle(courses, radii), CORTEX_PER_MM * density),
        Part(f"{name}-core", Bundle(courses, radii - shell_mm), core),
    ]


def rib_course(thorax: Thorax, index: int, side: int) -> Floats:
    """Return the midline (P, 3) in mm of rib ``index`` (0 is the first) from spine to front."""
    patient = thorax.patient
    start = _FIRST_RIB_MM * patient.stature - index * patient.rib_spacing_mm * patient.stature
    slope = patient.rib_slope_mm * min(1.0, 0.34 + 0.22 * index)
    reach = 0.80 if index < 7 else 0.80 - 0.06 * (index - 6)  # lower ribs end further back
    angle = np.linspace(0.10, reach, 11) * np.pi
    turned = angle / np.pi
    z = start + 9.0 * np.sin(2.0 * angle).clip(0.0) - slope * turned**1.25
    middle = start - slope * 0.42
    width = thorax.lung_edge_mm(middle) + 3.0
    width = min(width, thorax.half_width_mm + 3.0)
    depth = thorax.half_depth_mm + 2.0
    lean = 0.82 if index == 0 else 1.0
    x = side * (width * lean * np.sin(angle) ** 0.8 + 8.0 * (1.0 - turned) ** 4)
    return np.stack([x, 4.0 + depth * np.cos(angle), z], axis=1)


def ribs(thorax: Thorax) -> list[Part]:
    """Return ten pairs of ribs."""
    courses, radii = [], []
    for side in SIDES:
        for index in range(_RIBS):
            courses.append(rib_course(thorax, index, side))
            radii.append((5.6 if index else 6.4) * thorax.patient.stature)
    return _bones("rib", courses, radii_mm=radii, shell_mm=1.5, density=thorax.patient.rib_density)


def clavicles(thorax: Thorax) -> list[Part]:
    """Return both collar bones, gently S-shaped."""
    stature, density = thorax.patient.stature, thorax.patient.rib_density
    front = -thorax.half_depth_mm
    courses = []
    for side in SIDES:
        along = np.linspace(0.0, 1.0, 9)
        x = side * (14.0 + 142.0 * along) * stature
        y = front + 12.0 + 72.0 * along**1.5 - 10.0 * np.sin(2 * np.pi * along)
        z = (88.0 + 24.0 * along + 7.0 * np.sin(2 * np.pi * along)) * stature
        courses.append(np.stack([x, y, z], axis=1))
    return _bones("clavicle", courses, radii_mm=[6.4, 6.4], shell_mm=1.9, density=density)


def spine(thorax: Thorax) -> list[Part]:
    """Return the vertebral bodies from the neck to the upper belly, with pedicles and spinous processes."""
    patient = thorax.patient
    density = patient.rib_density
    parts: list[Part] = []
    spacing = patient.rib_spacing_mm * patient.stature
    for level in range(-3, 11):
        z = (_FIRST_RIB_MM - 4.0) * patient.stature - level * spacing
        x = patient.scoliosis_mm * float(np.sin(np.pi * (level + 3) / 13.0))
        width = 13.5 + 0.45 * max(level, 0)
        shapes: list[tuple[Shape, float]] = [
            (Slab((x, 52.0, z), (width, 14.0), 0.82 * spacing), 0.004),
            (Ellipsoid((x, 88.0, z - 0.4 * spacing), (3.2, 12.0, 8.0)), 0.006),
        ]
        shapes += [(Ellipsoid((x + side * 0.72 * width, 68.0, z), (3.2, 7.0, 5.0)), 0.008) for side in SIDES]
        parts += [Part("vertebra", shape, contrast * density) for shape, contrast in shapes]
    return parts


def shoulder_girdle(thorax: Thorax) -> list[Part]:
    """Return shoulder blades and heads of the upper arms."""
    stature, density = thorax.patient.stature, thorax.patient.rib_density
    parts: list[Part] = []
    shafts, spurs = [], []
    for side in SIDES:
        blade = Ellipsoid((side * 141.0 * stature, 78.0, 40.0), (24.0, 9.0, 66.0), (0, side * 13, 0))
        head = Ellipsoid((side * 186.0 * stature, 10.0, 104.0 * stature), (23.0, 23.0, 25.0))
        parts.append(Part("scapula", blade, 0.009 * density))
        parts.append(Part("humerus", head, 0.010 * density))
        shafts.append(np.array([[186.0, 10.0, 100.0], [216.0, 8.0, -120.0]]) * stature * (side, 1.0, 1.0))
        spurs.append(
            np.array([[108.0, 92.0, 78.0], [150.0, 74.0, 104.0], [172.0, 40.0, 116.0]])
            * stature
            * (side, 1.0, 1.0)
        )
    parts += _bones("humerus", shafts, radii_mm=[12.0, 12.0], shell_mm=4.0, density=density)
    return parts + _bones("scapula", spurs, radii_mm=[6.0, 6.0], shell_mm=2.0, density=0.8 * density)


def skeleton(thorax: Thorax) -> list[Part]:
    """Return all bones."""
    return [*ribs(thorax), *clavicles(thorax), *spine(thorax), *shoulder_girdle(thorax)]
