"""Soft tissue of the chest: torso, lungs, heart, great vessels, airways, diaphragm, breasts.

Origin: midline, halfway between front and back, about 35 mm below the carina. Attenuation is that of an
effective energy near 70 keV, where water has 0.019/mm (NIST XCOM).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedcad.simulations.phantom.anatomy import Part
from fedcad.simulations.phantom.patients import Patient
from fedcad.simulations.phantom.shapes import Ellipsoid, Slab, Tube, Vector

WATER_PER_MM = 0.019
SIDES = (-1, 1)  # the patient's right (x < 0) and left


def side_name(side: int) -> str:
    """Return ``right`` for -1 and ``left`` for 1."""
    return "right" if side < 0 else "left"


@dataclass(frozen=True)
class Thorax:
    """Main solids of one patient's chest at one depth of breath.

    Attributes:
        patient: Drawn traits.
        inspiration: 0 is a shallow breath, 1 a full one: moves the diaphragm and the heart.
    """

    patient: Patient
    inspiration: float

    @cached_property
    def half_width_mm(self) -> float:
        """Half of the chest's inner width."""
        return 140.0 * self.patient.stature * self.patient.slimness

    @cached_property
    def half_depth_mm(self) -> float:
        """Half of the chest's inner depth."""
        return 80.0 * self.patient.stature * (0.6 + 0.4 * self.patient.girth)

    def lung(self, side: int) -> Ellipsoid:
        """Return the ellipsoid that a lung is carved from."""
        width = 0.475 * self.half_width_mm
        centre = (side * (self.half_width_mm - width), 4.0, -56.0 * self.patient.stature)
        return Ellipsoid(
            centre,
            (width, self.half_depth_mm, 166.0 * self.patient.stature / self.patient.slimness),
            (0, side * 4, 0),
        )

    def lung_edge_mm(self, height: float) -> float:
        """Return the distance of the lungs' outer edge from the midline at a height z."""
        lung = self.lung(1)
        relative = (height - lung.centre_mm[2]) / lung.semi_axes_mm[2]
        return lung.centre_mm[0] + lung.semi_axes_mm[0] * float(np.sqrt(max(0.05, 1.0 - relative**2)))

    def dome(self, side: int) -> Ellipsoid:
        """Return the ellipsoid of a dome of the diaphragm with the organs beneath."""
        patient = self.patient
        top = (-88.0 + 30.0 * (1.0 - self.inspiration)) * patient.stature
        top -= patient.dome_difference_mm if side > 0 else 0.0
        height, width = 92.0, 0.46 * self.half_width_mm
        centre = (side * 0.475 * self.half_width_mm, -12.0, top - height)
        return Ellipsoid(centre, (width, 0.93 * self.half_depth_mm, height), (0, side * 6.0, 0))

    @cached_property
    def heart(self) -> Ellipsoid:
        """The heart; its projected width is the cardio-thoracic ratio times the chest's inner width."""
        patient = self.patient
        width = patient.cardiothoracic_ratio * self.half_width_mm * (1.06 - 0.06 * self.inspiration)
        tilt = np.radians(patient.heart_tilt_deg)
        # Solve for the long axis: width^2 = (long cos)^2 + (short sin)^2 with short = 0.74 long.
        long_axis = width / float(np.sqrt(np.cos(tilt) ** 2 + (0.74 * np.sin(tilt)) ** 2))
        centre = (0.31 * width, -22.0, -62.0 * patient.stature + 12.0 * (1.0 - self.inspiration))
        return Ellipsoid(
            centre, (long_axis, 56.0 * patient.stature, 0.74 * long_axis), (0, patient.heart_tilt_deg, 0)
        )

    @cached_property
    def mediastinum(self) -> Ellipsoid:
        """Everything between the lungs above and behind the heart."""
        return Ellipsoid((0.0, 12.0, 30.0), (29.0 * self.patient.stature, 74.0, 190.0))

    @cached_property
    def aortic_arch(self) -> Ellipsoid:
        """The arch that bulges beside the trachea on the left, the aortic knob."""
        radius = self.patient.aorta_mm
        return Ellipsoid(
            (20.0, 8.0, 62.0 * self.patient.stature), (radius + 8.0, 34.0, radius + 4.0), (0, 20, 0)
        )

    @cached_property
    def outflow(self) -> Ellipsoid:
        """Upper heart border: pulmonary trunk and atria between the arch and the ventricles."""
        return Ellipsoid((7.0, -12.0, 6.0), (37.0 * self.patient.stature, 40.0, 44.0), (0, 24, 0))

    def lungs(self) -> list[Part]:
        """Return both lungs, carved out by heart, vessels and diaphragm."""
        air = -WATER_PER_MM * (1.0 - self.patient.lung_density)
        carved = (self.mediastinum, self.heart, self.outflow)
        parts = []
        for side in SIDES:
            without = (*carved, self.dome(side), *((self.aortic_arch,) if side > 0 else ()))
            parts.append(Part(f"lung-{side_name(side)}", self.lung(side), air, without))
        return parts

    @cached_property
    def torso(self) -> Ellipsoid:
        """The trunk."""
        girth = self.patient.girth
        width = self.half_width_mm + 24.0 + 26.0 * girth
        return Ellipsoid((0.0, 0.0, -150.0), (width, self.half_depth_mm + 6.0 + 22.0 * girth, 390.0))

    def trunk(self) -> list[Part]:
        """Return torso, neck and shoulders, which together do not overlap."""
        stature, girth = self.patient.stature, self.patient.girth
        neck = Slab((0.0, 25.0, 180.0), (56.0 * stature * girth**0.5, 58.0), 240.0)
        parts = [Part("torso", self.torso, WATER_PER_MM), Part("neck", neck, WATER_PER_MM, (self.torso,))]
        for side in SIDES:
            upper = Ellipsoid(
                (side * 88.0 * stature, 22.0, 98.0 * stature),
                (98.0 * stature, 46.0, 48.0 * girth**0.5),
                (0, side * 17, 0),
            )
            arm = Ellipsoid(
                (side * 186.0 * stature, 8.0, 48.0 * stature), (42.0 * girth, 46.0, 100.0), (0, side * -18, 0)
            )
            parts.append(Part("shoulder", upper, WATER_PER_MM, (self.torso, neck)))
            parts.append(Part("arm", arm, WATER_PER_MM, (self.torso, upper)))
        return parts

    def chest_wall(self) -> list[Part]:
        """Return breasts or pectoral muscles, with nipples where they show."""
        patient, parts = self.patient, []
        size = patient.breast_mm
        front = -(self.half_depth_mm + 10.0)
        for side in SIDES:
            if patient.sex == "female":
                # Leaning back above, so that only the lower edge of its shadow is sharp.
                centre: Vector = (side * 84.0 * patient.stature, front - 2.0, -52.0)
                shape = Ellipsoid(centre, (0.95 * size, 0.42 * size, 1.25 * size), (-24.0, 0.0, side * 10.0))
            else:
                centre = (side * 96.0 * patient.stature, front + 4.0, 34.0)
                shape = Ellipsoid(centre, (1.5 * size, 0.42 * size, 1.6 * size), (14.0, 0.0, side * 22.0))
            parts.append(Part("breast", shape, 0.75 * WATER_PER_MM, (self.torso,)))
            if patient.nipple_shadows:
                tip = Ellipsoid((side * 92.0 * patient.stature, front - 0.6 * size, -84.0), (5.0, 7.0, 5.0))
                parts.append(Part("nipple", tip, WATER_PER_MM))
        return parts

    def airways(self) -> list[Part]:
        """Return trachea, main bronchi and the stomach's air."""
        bend = 0.4 * self.patient.scoliosis_mm
        carina: Vector = (3.0 + bend, 8.0, 36.0)
        trachea = Tube(((bend, 2.0, 190.0), (2.0 + bend, 6.0, 90.0), carina), 8.0 * self.patient.stature)
        right = Tube((carina, (-24.0, 12.0, 8.0)), 6.5)
        left = Tube((carina, (34.0, 14.0, 6.0)), 5.8)
        dome = self.dome(1)
        bubble = Ellipsoid((0.8 * dome.centre_mm[0], 14.0, dome.centre_mm[2] + 62.0), (27.0, 24.0, 15.0))
        shapes = (trachea, right, left, bubble)
        return [Part("airway", shape, -0.62 * WATER_PER_MM) for shape in shapes]

    def descending_aorta(self) -> Part:
        """Return the aorta behind the heart; it adds what it displaces of the left lung's edge."""
        x = 17.0 + self.patient.scoliosis_mm
        points: tuple[Vector, ...] = (
            (x + 8.0, 34.0, 58.0),
            (x + 7.0, 40.0, 0.0),
            (x, 42.0, -70.0),
            (x - 8, 40.0, -160.0),
        )
        return Part("aorta", Tube(points, self.patient.aorta_mm), 0.22 * WATER_PER_MM)

    def parts(self) -> list[Part]:
        """Return all soft parts."""
        return [*self.trunk(), *self.lungs(), *self.chest_wall(), *self.airways(), self.descending_aorta()]
