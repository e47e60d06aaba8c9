"""What differs between two images of one patient: pose, breath, dose, collimation, noise."""

from dataclasses import dataclass

import numpy as np

from fedcad.simulations.phantom.projector import Beam, View
from fedcad.simulations.phantom.vendors import Detector

SHALLOWEST_BREATH = 0.1
"""Least inspiration drawn."""

_DETECTOR_FROM_ORIGIN_MM = 160.0


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Drawn facts of one exposure.

    Attributes:
        view: ``PA`` (standing) or ``AP`` (lying, nearer source, shallower breath, larger heart).
        inspiration: 0 is a shallow breath, 1 a full one.
        rotation_deg: Turn of the patient.
        source_to_detector_mm: Source-image distance.
        centre_mm: Aim of the central ray: (to the left, to the head).
        dose: Scale of the detector's usual number of quanta.
        collimation: Closed share of the field at top, bottom, left and right.
        marker_jitter: Shift of the side marker inwards as a share of the field: (vertical, horizontal).
        brightness: Shift of the automatic window as a share of its width.
        noise_seed: Seed of the quantum and electronic noise.
    """

    view: View
    inspiration: float
    rotation_deg: float
    source_to_detector_mm: float
    centre_mm: tuple[float, float]
    dose: float
    collimation: tuple[float, float, float, float]
    marker_jitter: tuple[float, float]
    brightness: float
    noise_seed: int

    def beam(self, detector: Detector, size: int) -> Beam:
        """Return the rays on a grid of ``size`` rows and columns over the detector's field."""
        return Beam(
            rows=size,
            columns=size,
            spacing_mm=detector.field_mm / size,
            view=self.view,
            source_to_detector_mm=self.source_to_detector_mm,
            detector_from_origin_mm=_DETECTOR_FROM_ORIGIN_MM,
            rotation_deg=self.rotation_deg,
            centre_mm=self.centre_mm,
        )


def draw_exposure(generator: np.random.Generator, detector: Detector) -> Exposure:
    """Draw one exposure on a detector."""
    lying = bool(generator.random() < detector.lying_share)
    low, high = (SHALLOWEST_BREATH, 0.7) if lying else (0.55, 1.0)

    def around_zero(deviation: float, limit: float) -> float:
        return round(float(np.clip(generator.normal(0.0, deviation), -limit, limit)), 4)

    closed = generator.uniform(0.0, detector.collimation_share, 4) * (generator.random(4) < 0.7)
    top, bottom, left, right = (round(float(share), 4) for share in closed)
    return Exposure(
        view="AP" if lying else "PA",
        inspiration=round(float(generator.uniform(low, high)), 4),
        rotation_deg=around_zero(4.0 if lying else 2.0, 8.0),
        source_to_detector_mm=round(float(generator.uniform(1000.0, 1250.0) if lying else 1800.0), 1),
        centre_mm=(around_zero(6.0, 14.0), -24.0 + around_zero(7.0, 16.0)),
        dose=round(float(np.exp(np.clip(generator.normal(0.0, 0.4), -1.0, 1.0))), 4),
        collimation=(top, bottom, left, right),
        marker_jitter=(around_zero(0.012, 0.03), around_zero(0.012, 0.03)),
        brightness=around_zero(0.04, 0.1),
        noise_seed=int(generator.integers(2**62)),
    )
