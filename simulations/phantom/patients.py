"""What differs between patients: habitus, chest, heart, age. Drawn once per patient and recorded."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Sex = Literal["female", "male"]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Drawn traits of one patient. Lengths in mm, ratios without unit.

    Attributes:
        sex: Sex-like habitus: size, breasts or pectoral muscles.
        age_years: Age; older lungs are coarser and older aortas wider.
        stature: Scale of the chest; 1 is average.
        girth: Scale of the soft tissue around and the depth of the chest; 1 is average.
        slimness: Lungs' width against their height; 1 is average.
        cardiothoracic_ratio: Heart's width over the chest's inner width at full inspiration.
        heart_tilt_deg: Angle of the heart's long axis below the horizontal.
        rib_spacing_mm: Distance of neighbouring ribs at the spine.
        rib_slope_mm: How much lower a rib ends in front than it starts at the spine.
        rib_density: Scale of the bones' contrast.
        breast_mm: Size of the breasts or pectoral muscles.
        nipple_shadows: Whether the nipples show as soft round shadows: a trap for nodule detectors.
        dome_difference_mm: How much higher the right dome of the diaphragm is than the left.
        lung_density: Attenuation of the lungs against that of water.
        aorta_mm: Radius of the aorta.
        scoliosis_mm: Sideways bow of the spine.
        texture: Relative amplitude of the fine structure of the lungs.
        vessel_count: Branches of the lung vessels on each side.
        anatomy_seed: Seed of what is too numerous to list: courses of vessels and the fine structure.
    """

    sex: Sex
    age_years: float
    stature: float
    girth: float
    slimness: float
    cardiothoracic_ratio: float
    heart_tilt_deg: float
    rib_spacing_mm: float
    rib_slope_mm: float
    rib_density: float
    breast_mm: float
    nipple_shadows: bool
    dome_difference_mm: float
    lung_density: float
    aorta_mm: float
    scoliosis_mm: float
    texture: float
    vessel_count: int
    anatomy_seed: int


def draw_patient(generator: np.random.Generator) -> Patient:
    """Draw one patient's traits."""
    female = bool(generator.random() < 0.48)
    age = round(float(generator.uniform(22.0, 88.0)), 1)
    aged = (age - 22.0) / 66.0

    def uniform(low: float, high: float) -> float:
        return round(float(generator.uniform(low, high)), 4)

    return Patient(
        sex="female" if female else "male",
        age_years=age,
        stature=uniform(0.86, 0.98) if female else uniform(0.94, 1.06),
        girth=uniform(0.84, 1.2),
        slimness=uniform(0.92, 1.07),
        cardiothoracic_ratio=uniform(0.40, 0.50) + round(0.05 * aged, 4),
        heart_tilt_deg=uniform(22.0, 48.0),
        rib_spacing_mm=uniform(22.5, 27.0),
        rib_slope_mm=uniform(70.0, 115.0),
        rib_density=uniform(0.75, 1.25) - round(0.2 * aged, 4),
        breast_mm=uniform(38.0, 74.0) if female else uniform(26.0, 46.0),
        nipple_shadows=bool(generator.random() < 0.2),
        dome_difference_mm=uniform(2.0, 20.0),
        lung_density=uniform(0.22, 0.34),
        aorta_mm=uniform(11.0, 14.0) + round(4.0 * aged, 4),
        scoliosis_mm=uniform(-7.0, 7.0),
        texture=uniform(0.03, 0.06) + round(0.04 * aged, 4),
        vessel_count=int(generator.integers(7, 11)),
        anatomy_seed=int(generator.integers(2**62)),
    )
