"""Invented X-ray systems; names and numbers are plausible but stand for no real product."""

from dataclasses import dataclass
from typing import Literal

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


@dataclass(frozen=True, kw_only=True)
class Detector:
    """One model of X-ray system: optics, noise, processing and habits of its users.

    Attributes:
        vendor: Manufacturer.
        model: Model name.
        modality: ``DX`` (flat panel) or ``CR`` (storage phosphor plate).
        photometric: How the archive stores pixels; the phantom itself always gives larger = brighter.
        bits_stored: Grey values have this many bits.
        field_mm: Edge of the square field at the detector.
        blur_mm: Standard deviation of the point spread.
        quanta_per_mm2: Quanta per area behind nothing, at usual dose.
        electronic_noise: Standard deviation of electronic noise in quanta per mm.
        noise_grain_mm: Correlation length of the noise.
        scatter: Scattered over all radiation behind the grid.
        heel: Loss of intensity from head to feet across the field.
        vignette: Loss of intensity from the middle to the sides (grid cut-off).
        edge_gain: Strength of edge enhancement (unsharp masking).
        edge_mm: Scale of edge enhancement.
        flattening: Share of the coarse contrast that the processing removes.
        window: Percentiles of the image that become black and white.
        gamma: Exponent of the response; above 1 darkens the middle greys.
        shoulder: Bend of the S-shaped response curve; 0 is straight.
        lying_share: Share of AP images.
        collimation_share: Largest closed share of the field at each edge.
        shutter: Grey value outside the collimated field, 0 black to 1 white.
        marker: Side letter and the corner it is placed at.
        marker_mm: Height of the letter.
    """

    vendor: str
    model: str
    modality: Literal["DX", "CR"]
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    bits_stored: Literal[8, 10, 12] = 12
    field_mm: float
    blur_mm: float
    quanta_per_mm2: float
    electronic_noise: float
    noise_grain_mm: float
    scatter: float
    heel: float
    vignette: float
    edge_gain: float
    edge_mm: float
    flattening: float
    window: tuple[float, float]
    gamma: float
    shoulder: float
    lying_share: float
    collimation_share: float
    shutter: float
    marker: tuple[Literal["L", "R"], Corner]
    marker_mm: float


DETECTORS: tuple[Detector, ...] = (
    Detector(
        vendor="Phantom Vendor A",
        model="Aster 1000 Flat Panel",
        modality="DX",
        bits_stored=12,
        field_mm=375.0,
        blur_mm=0.25,
        quanta_per_mm2=20000.0,
        electronic_noise=4.0,
        noise_grain_mm=0.3,
        scatter=0.22,
        heel=0.10,
        vignette=0.06,
        edge_gain=0.5,
        edge_mm=3.0,
        flattening=0.75,
        window=(1.0, 99.0),
        gamma=1.0,
        shoulder=0.5,
        lying_share=0.1,
        collimation_share=0.03,
        shutter=0.0,
        marker=("L", "top-right"),
        marker_mm=13.0,
    ),
    Detector(
        vendor="Phantom Vendor B",
        model="Borealis Plate Reader",
        modality="CR",
        photometric="MONOCHROME1",
        bits_stored=10,
        field_mm=390.0,
        blur_mm=0.9,
        quanta_per_mm2=5000.0,
        electronic_noise=9.0,
        noise_grain_mm=0.9,
        scatter=0.38,
        heel=0.22,
        vignette=0.10,
        edge_gain=0.1,
        edge_mm=4.0,
        flattening=0.60,
        window=(0.5, 99.5),
        gamma=0.78,
        shoulder=0.0,
        lying_share=0.35,
        collimation_share=0.07,
        shutter=0.0,
        marker=("R", "top-left"),
        marker_mm=17.0,
    ),
    Detector(
        vendor="Phantom Vendor C",
        model="Cirrus Mobile 35",
        modality="DX",
        bits_stored=12,
        field_mm=380.0,
        blur_mm=0.6,
        quanta_per_mm2=9000.0,
        electronic_noise=12.0,
        noise_grain_mm=0.5,
        scatter=0.46,
        heel=0.16,
        vignette=0.20,
        edge_gain=0.9,
        edge_mm=5.0,
        flattening=0.80,
        window=(1.5, 98.0),
        gamma=1.05,
        shoulder=0.7,
        lying_share=0.85,
        collimation_share=0.05,
        shutter=0.0,
        marker=("L", "bottom-right"),
        marker_mm=15.0,
    ),
    Detector(
        vendor="Phantom Vendor D",
        model="Delphi Archive 8",
        modality="CR",
        bits_stored=8,
        field_mm=405.0,
        blur_mm=1.2,
        quanta_per_mm2=3200.0,
        electronic_noise=8.0,
        noise_grain_mm=1.2,
        scatter=0.34,
        heel=0.05,
        vignette=0.04,
        edge_gain=0.0,
        edge_mm=4.0,
        flattening=0.65,
        window=(2.0, 95.0),
        gamma=1.15,
        shoulder=0.8,
        lying_share=0.25,
        collimation_share=0.09,
        shutter=0.25,
        marker=("R", "bottom-left"),
        marker_mm=20.0,
    ),
    Detector(
        vendor="Phantom Vendor E",
        model="Ember Panel Pro",
        modality="DX",
        bits_stored=10,
        field_mm=360.0,
        blur_mm=0.2,
        quanta_per_mm2=26000.0,
        electronic_noise=3.0,
        noise_grain_mm=0.25,
        scatter=0.16,
        heel=0.08,
        vignette=0.03,
        edge_gain=1.3,
        edge_mm=2.0,
        flattening=0.85,
        window=(1.0, 99.5),
        gamma=0.9,
        shoulder=0.2,
        lying_share=0.05,
        collimation_share=0.02,
        shutter=0.0,
        marker=("R", "top-left"),
        marker_mm=11.0,
    ),
    Detector(
        vendor="Phantom Vendor F",
        model="Fjord Upright 43",
        modality="DX",
        bits_stored=12,
        field_mm=395.0,
        blur_mm=0.45,
        quanta_per_mm2=9000.0,
        electronic_noise=6.0,
        noise_grain_mm=0.6,
        scatter=0.28,
        heel=0.28,
        vignette=0.12,
        edge_gain=0.3,
        edge_mm=8.0,
        flattening=0.70,
        window=(0.2, 97.5),
        gamma=1.1,
        shoulder=0.7,
        lying_share=0.0,
        collimation_share=0.06,
        shutter=0.12,
        marker=("L", "top-right"),
        marker_mm=18.0,
    ),
)


def detector_named(vendor: str, model: str) -> Detector:
    """Return a detector by vendor and model.

    Raises:
        KeyError: There is none of that name.
    """
    for detector in DETECTORS:
        if (detector.vendor, detector.model) == (vendor, model):
            return detector
    raise KeyError(f"no detector {vendor!r} {model!r}; known: {[d.model for d in DETECTORS]}")
