"""Frozen emulated scanners, for sites that differ in nothing but the appearance of their images.

The chain follows a digital detector and its processing: blur of the detector, dose and quantum noise,
response curve, edge enhancement, display window, quantisation. Vendors are invented; no real product is
imitated. Parameters are in fractions of the full range, so they fit any bit depth.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import DataError
from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.acquisition import parse_acquisition
from fedcad.simulations.datasets.interface import Pixels

EMULATION_VERSION = 1
"""Raised whenever the same profile would give other pixels, so that cached archives are written anew."""


@dataclass(frozen=True, kw_only=True)
class ScannerProfile:
    """How one emulated scanner shows the same patient.

    Attributes:
        vendor: Invented manufacturer.
        model: Invented model.
        photometric: How it stores grey values, ``MONOCHROME1`` or ``MONOCHROME2``.
        bits_stored: Bits of its grey values.
        blur_px: Standard deviation of the detector's blur, in pixels.
        exposure: Dose relative to the original; more dose, less noise, brighter.
        noise: Standard deviation of quantum noise at full signal and exposure 1.
        gamma: Exponent of the response; below 1 brightens.
        sharpening: Strength of the edge enhancement; 0 is none.
        window: Lowest and highest signal that the display range shows.
    """

    vendor: str
    model: str
    photometric: str = "MONOCHROME2"
    bits_stored: int
    blur_px: float = 0.0
    exposure: float = 1.0
    noise: float = 0.0
    gamma: float = 1.0
    sharpening: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)

    @property
    def key(self) -> str:
        """SHA-256 of everything that decides about the pixels and attributes."""
        return hash_of([EMULATION_VERSION, {**asdict(self), "window": list(self.window)}])

    def acquisition(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Return acquisition facts as this scanner would write them; it has its own window."""
        kept = {key: text for key, text in facts.items() if not key.startswith("window")}
        return {
            **kept,
            "vendor": self.vendor,
            "model": self.model,
            "photometric": self.photometric,
            "bits_stored": str(self.bits_stored),
        }


SCANNERS = (
    ScannerProfile(vendor="Aurelia Imaging", model="AI-100", bits_stored=12),
    ScannerProfile(
        vendor="Borealis Medical",
        model="Polar DR",
        bits_stored=14,
        exposure=1.15,
        noise=0.01,
        gamma=0.65,
        sharpening=0.8,
        window=(0.05, 0.97),
    ),
    ScannerProfile(
        vendor="Cassiopeia Health",
        model="Plate Reader 7",
        photometric="MONOCHROME1",
        bits_stored=10,
        blur_px=1.0,
        exposure=0.85,
        noise=0.03,
        gamma=1.5,
    ),
    ScannerProfile(
        vendor="Delphin Systems",
        model="Mobile 2",
        bits_stored=12,
        blur_px=0.6,
        exposure=0.7,
        noise=0.045,
        window=(0.0, 0.75),
    ),
    ScannerProfile(
        vendor="Equinox Radiography",
        model="EQ Wall",
        photometric="MONOCHROME1",
        bits_stored=12,
        noise=0.015,
        gamma=0.85,
        sharpening=1.6,
        window=(0.12, 0.88),
    ),
    ScannerProfile(
        vendor="Fjord Detectors",
        model="F8",
        bits_stored=8,
        blur_px=1.4,
        gamma=1.2,
        exposure=1.3,
        window=(0.0, 1.15),
    ),
)
"""The scanners, in the order in which feature-shift sites get them; the first leaves images as they are."""


def emulate_scanner(
    pixels: Pixels, *, profile: ScannerProfile, content_id: str, facts: Mapping[str, str]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Show an image as an emulated scanner would; the same input gives the same output.

    Args:
        pixels: Grey values, shape (rows, columns), larger is brighter.
        profile: The scanner.
        content_id: Identity of the pixels; seeds the noise.
        facts: Acquisition facts of the pixels (bit depth and window).

    Returns:
        Shape (rows, columns), uint8 up to 8 bits stored, else uint16; larger is brighter.

    Raises:
        DataError: The acquisition facts are wrong.
    """
    # Imported late: it takes a tenth of a second, and most simulations emulate no scanner.
    from scipy.ndimage import gaussian_filter

    signal = _signal(pixels, facts)
    if profile.blur_px > 0.0:
        signal = gaussian_filter(signal, profile.blur_px)
    if profile.noise > 0.0:
        signal = signal + _quantum_noise(signal, profile, content_id)
    signal = np.power(np.clip(signal * profile.exposure, 0.0, None), profile.gamma)
    if profile.sharpening > 0.0:
        signal = signal + profile.sharpening * (signal - gaussian_filter(signal, 2.0))
    low, high = profile.window
    shown = np.clip((signal - low) / (high - low), 0.0, 1.0)
    grey = np.rint(shown * (2**profile.bits_stored - 1))
    if profile.bits_stored <= 8:
        return np.asarray(grey, dtype=np.uint8)
    return np.asarray(grey, dtype=np.uint16)


def _signal(pixels: Pixels, facts: Mapping[str, str]) -> NDArray[np.float32]:
    """Scale grey values to 0..1 by the record's window or, without one, by its bit depth."""
    acquisition = parse_acquisition(facts)
    bits = acquisition.bits_stored if pixels.dtype != np.uint8 else 8
    top = 2 ** (bits or 8 * pixels.dtype.itemsize) - 1
    if int(pixels.max()) > top:
        raise DataError(f"grey values reach {int(pixels.max())}; bits_stored allows {top}")
    low, width = 0.0, float(top)
    if not acquisition.has_window:
        # Nothing says which values matter, so all that occur do.
        low = float(pixels.min())
        width = max(float(pixels.max()) - low, 1.0)
    elif acquisition.window is not None:
        # Linear window of DICOM PS3.3 C.11.2.1.2.1.
        center, full_width = acquisition.window
        width = max(full_width - 1.0, 1.0)
        low = center - 0.5 - width / 2.0
    scaled: NDArray[np.float32] = np.clip((pixels.astype(np.float32) - low) / width, 0.0, 1.0)
    return scaled


def _quantum_noise(
    signal: NDArray[np.float32], profile: ScannerProfile, content_id: str
) -> NDArray[np.float32]:
    """Poisson statistics: the variance grows with the signal and falls with the dose."""
    generator = numpy_generator(0, "scanner-noise", profile.vendor, profile.model, content_id)
    normal = generator.standard_normal(signal.shape, dtype=np.float32)
    scaled: NDArray[np.float32] = (
        normal * np.sqrt(np.clip(signal, 0.0, None) / profile.exposure) * profile.noise
    )
    return scaled
