"""One phantom radiograph: draw everything, record it, then render it as a pure function of the record."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.canonical import hash_of
from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.phantom.anatomy import Anatomy, Part
from fedcad.simulations.phantom.exposures import SHALLOWEST_BREATH, Exposure, draw_exposure
from fedcad.simulations.phantom.findings import Finding, Label, Nodule, Opacity, draw_finding
from fedcad.simulations.phantom.grids import (
    block_mean,
    cloud,
    filtered,
    frequencies,
    gaussian_transfer,
    resize,
)
from fedcad.simulations.phantom.patients import Patient, draw_patient
from fedcad.simulations.phantom.projector import Beam, Image, carved_lengths
from fedcad.simulations.phantom.response import burn_marker, collimate, develop, to_grey
from fedcad.simulations.phantom.skeleton import skeleton
from fedcad.simulations.phantom.thorax import WATER_PER_MM, Thorax
from fedcad.simulations.phantom.vendors import DETECTORS, Detector, detector_named
from fedcad.simulations.phantom.vessels import vessels

GENERATOR_VERSION = 2
"""Raise when the same drawn values give other pixels; it is part of every content id."""

_FINE_PIXELS = 192  # least grid for edges; smaller images are averaged from it
_TEXTURE_POINTS = 128
_OPACITY_POINTS = 56  # a grain of 7 mm, which is still seen in images of 64 pixels
_SHARP = ("vessel", "airway", "hilum")


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """All drawn values of one image; its pixels follow from them alone.

    Attributes:
        label: ``normal``, ``opacity`` or ``nodule``.
        vendor: Vendor of the X-ray system.
        model: Model of the X-ray system.
        size: Rows and columns in pixels.
        patient: Drawn traits of the patient.
        finding: Drawn finding; None if normal.
        exposure: Drawn facts of the exposure.
    """

    label: Label
    vendor: str
    model: str
    size: int
    patient: Patient
    finding: Finding
    exposure: Exposure

    @property
    def detector(self) -> Detector:
        """X-ray system."""
        return detector_named(self.vendor, self.model)

    @property
    def pixel_spacing_mm(self) -> float:
        """Distance of pixel centres at the detector (Imager Pixel Spacing, PS3.3 10.7.1.3)."""
        return self.detector.field_mm / self.size

    @property
    def beam(self) -> Beam:
        """Rays through the centres of the image's pixels."""
        return self.exposure.beam(self.detector, self.size)

    @property
    def thorax(self) -> Thorax:
        """Chest at this exposure's breath."""
        return Thorax(self.patient, self.exposure.inspiration)

    def content_id(self) -> str:
        """Return the SHA-256 of the generator's version and all drawn values."""
        return hash_of({"generator": "phantom-chest", "version": GENERATOR_VERSION, "drawn": asdict(self)})


def draw_radiograph(
    seed: int, patient_index: int, image_index: int, *, label: Label, size: int
) -> Radiograph:
    """Draw one image; depends on nothing but its arguments.

    The patient's anatomy and X-ray system do not depend on the label, so that the same patient can be drawn
    with and without a finding.
    """
    patient = draw_patient(numpy_generator(seed, "phantom-patient", patient_index))
    chosen = numpy_generator(seed, "phantom-vendor", patient_index).integers(len(DETECTORS))
    detector = DETECTORS[int(chosen)]
    # Placed in the shallowest breath, so that the diaphragm never hides it.
    finding = draw_finding(
        label,
        numpy_generator(seed, "phantom-finding", label, patient_index),
        Thorax(patient, SHALLOWEST_BREATH),
    )
    exposure = draw_exposure(numpy_generator(seed, "phantom-exposure", patient_index, image_index), detector)
    return Radiograph(
        label=label,
        vendor=detector.vendor,
        model=detector.model,
        size=size,
        patient=patient,
        finding=finding,
        exposure=exposure,
    )


def _opacity_map(opacity: Opacity, thorax: Thorax, beam: Beam) -> Image:
    """Return the opacity's line integral: patches, textured, soft-edged, scaled to the drawn density."""
    patches = Anatomy(tuple(opacity.parts(thorax))).project(beam)
    soft = gaussian_transfer(frequencies(beam.rows, beam.columns, beam.spacing_mm), opacity.softness_mm)
    depth = np.maximum(filtered(patches, soft), 0.0)
    depth *= np.float32(opacity.density / max(float(depth.max()), 1e-6))
    grain = resize(cloud(opacity.shape_seed, _OPACITY_POINTS, 0.3), beam.rows, beam.columns)
    return np.asarray(depth * np.clip(1.0 + np.float32(opacity.grain) * grain, 0.0, 3.0), dtype=np.float32)


def finding_map(radiograph: Radiograph, beam: Beam) -> Image:
    """Return the finding's own line integral, the ground truth of where it shows; zero if normal."""
    finding = radiograph.finding
    if isinstance(finding, Nodule):
        return Anatomy(tuple(finding.parts())).project(beam)
    if isinstance(finding, Opacity):
        return _opacity_map(finding, radiograph.thorax, beam)
    return np.zeros((beam.rows, beam.columns), dtype=np.float32)


def anatomy_of(radiograph: Radiograph) -> Anatomy:
    """Return the body without its finding."""
    thorax = radiograph.thorax
    return Anatomy((*thorax.parts(), *vessels(thorax), *skeleton(thorax)))


def _split(parts: tuple[Part, ...]) -> tuple[Anatomy, Anatomy]:
    """Separate parts with fine edges from those that half the resolution shows as well; no lungs."""
    rest = [part for part in parts if not part.name.startswith("lung")]
    sharp = tuple(part for part in rest if part.name.startswith(_SHARP))
    return Anatomy(sharp), Anatomy(tuple(part for part in rest if not part.name.startswith(_SHARP)))


def _lungs(radiograph: Radiograph, beam: Beam) -> Image:
    """Return what the lungs' air takes away, uneven by the fine structure of their tissue."""
    patient, lungs = radiograph.patient, radiograph.thorax.lungs()
    grain = resize(cloud(patient.anatomy_seed, _TEXTURE_POINTS, 1.2), beam.rows, beam.columns)
    tissue = np.float32(WATER_PER_MM * patient.lung_density * patient.texture) * grain
    depth = np.zeros((beam.rows, beam.columns), dtype=np.float32)
    for lung in lungs:
        depth += carved_lengths(lung.shape, lung.without, beam)
    return (tissue + np.float32(lungs[0].contrast_per_mm)) * depth


def line_integrals_of(radiograph: Radiograph, size: int) -> Image:
    """Return the body's and the finding's line integrals on a grid of ``size`` pixels, shape (size, size)."""
    half = (size + 1) // 2
    fine = radiograph.exposure.beam(radiograph.detector, size)
    coarse = radiograph.exposure.beam(radiograph.detector, half)
    sharp, smooth = _split(anatomy_of(radiograph).parts)
    soft = smooth.project(coarse)
    if isinstance(radiograph.finding, Opacity):
        soft += finding_map(radiograph, coarse)
    total = resize(soft, size, size) + sharp.project(fine)
    total += _lungs(radiograph, fine)
    if isinstance(radiograph.finding, Nodule):
        total += finding_map(radiograph, fine)
    return np.asarray(np.maximum(total, 0.0), dtype=np.float32)


def render(radiograph: Radiograph) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Render the pixels, larger is brighter, shape (size, size); uint8 for 8 bits stored, else uint16."""
    detector, exposure = radiograph.detector, radiograph.exposure
    factor = -(-_FINE_PIXELS // radiograph.size)
    integrals = line_integrals_of(radiograph, factor * radiograph.size)
    grey = to_grey(develop(integrals, detector, exposure, factor), detector, exposure)
    collimate(grey, detector, exposure)
    burn_marker(grey, detector, exposure)
    top = 2**detector.bits_stored - 1
    values: Image = np.rint(grey * np.float32(top))
    return values.astype(np.uint8) if detector.bits_stored == 8 else values.astype(np.uint16)


def finding_mask(radiograph: Radiograph) -> NDArray[np.bool_]:
    """Return where the finding adds at least a third of its strongest shadow, shape (size, size)."""
    factor = -(-_FINE_PIXELS // radiograph.size)
    fine = radiograph.exposure.beam(radiograph.detector, factor * radiograph.size)
    shadow = block_mean(finding_map(radiograph, fine), factor)
    peak = float(shadow.max())
    return np.asarray(shadow > peak / 3.0) if peak > 0.0 else np.zeros(shadow.shape, dtype=np.bool_)
