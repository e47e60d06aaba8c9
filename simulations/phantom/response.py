"""From line integrals to grey values: scatter, shading, blur, noise, processing, collimator, marker, bits."""

import numpy as np

from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.phantom.exposures import Exposure
from fedcad.simulations.phantom.grids import block_mean, filtered, frequencies, gaussian_transfer, resize
from fedcad.simulations.phantom.markers import letter, place_of
from fedcad.simulations.phantom.projector import Image
from fedcad.simulations.phantom.vendors import Detector

_SCATTER_MM = 45.0  # spread of scattered radiation
_SCATTER_GRID = 32  # pixels across the field on which it is computed
_FLOOR = np.float32(1e-4)  # least transmission that the logarithm sees
_FLATTENING_MM = 30.0  # structures larger than this are coarse contrast


def transmission(line_integrals: Image) -> Image:
    """Return the share of quanta that pass: exp(-line integral) (Beer-Lambert)."""
    return np.exp(-line_integrals)


def with_scatter(primary: Image, share: float, field_mm: float) -> Image:
    """Add scattered radiation, a broad blur of the primary, ``share`` of the mean signal."""
    coarse = resize(primary, _SCATTER_GRID, _SCATTER_GRID)
    transfer = gaussian_transfer(
        frequencies(_SCATTER_GRID, _SCATTER_GRID, field_mm / _SCATTER_GRID), _SCATTER_MM
    )
    spread = resize(np.maximum(filtered(coarse, transfer), 0.0), *primary.shape)
    return primary + np.float32(share / (1.0 - share)) * spread


def shading(detector: Detector, size: int) -> Image:
    """Return the unevenness of the beam, shape (size, size): heel effect down, grid cut-off to both sides."""
    place = (np.arange(size, dtype=np.float32) + 0.5) / size
    down = 1.0 - detector.heel * place
    across = 1.0 - detector.vignette * (2.0 * place - 1.0) ** 2
    return np.asarray(down[:, None] * across[None, :], dtype=np.float32)


def noise(signal: Image, detector: Detector, exposure: Exposure) -> Image:
    """Draw relative noise for a signal in quanta per pixel over quanta per pixel behind nothing.

    Quantum noise has the mean as its variance (Poisson); counts per pixel are large, so that its normal limit
    is drawn. Electronic noise does not depend on the signal. Both are white; :func:`develop` colours them.
    """
    pixel_mm = detector.field_mm / len(signal)
    quanta = detector.quanta_per_mm2 * exposure.dose * pixel_mm**2
    variance = signal * np.float32(1.0 / quanta)
    variance += np.float32((detector.electronic_noise * pixel_mm / quanta) ** 2)
    white = numpy_generator(exposure.noise_seed, "phantom-noise").standard_normal(
        signal.shape, dtype=np.float32
    )
    return np.asarray(np.sqrt(variance) * white)


def develop(line_integrals: Image, detector: Detector, exposure: Exposure, factor: int) -> Image:
    """Turn line integrals on a grid ``factor`` times finer into a noisy, sharpened logarithmic image.

    Returns:
        Apparent attenuation -ln(signal), larger is brighter, shape (rows / factor, columns / factor).
    """
    primary = block_mean(transmission(line_integrals), factor)
    size = len(primary)
    signal = with_scatter(primary, detector.scatter, detector.field_mm) * shading(detector, size)
    signal = np.maximum(signal, _FLOOR)
    # The logarithm's slope is 1 / signal; clipping at one deviation-size step keeps dark pixels finite.
    relative = np.clip(noise(signal, detector, exposure) / signal, -0.9, 3.0)
    frequency = frequencies(size, size, detector.field_mm / size)
    grain = gaussian_transfer(frequency, detector.noise_grain_mm)
    sharp = gaussian_transfer(frequency, detector.blur_mm)
    sharp *= 1.0 + np.float32(detector.edge_gain) * (1.0 - gaussian_transfer(frequency, detector.edge_mm))
    sharp *= 1.0 - np.float32(detector.flattening) * gaussian_transfer(frequency, _FLATTENING_MM)
    return filtered(-np.log(signal), sharp) - filtered(relative, sharp * grain)


def to_grey(image: Image, detector: Detector, exposure: Exposure) -> Image:
    """Apply the automatic window and the vendor's response curve; grey values 0 to 1."""
    edge = len(image) // 8
    low, high = np.percentile(image[edge:-edge:2, edge:-edge:2], detector.window)
    width = max(float(high - low), 1e-6)
    grey = np.clip(
        (image - np.float32(low)) * np.float32(1.0 / width) + np.float32(exposure.brightness), 0.0, 1.0
    )
    grey = grey ** np.float32(detector.gamma)
    smooth = grey * grey * (3.0 - 2.0 * grey)
    bend = np.float32(min(1.0, 0.6 * detector.shoulder))
    return np.asarray(grey + bend * (smooth - grey), dtype=np.float32)


def collimate(grey: Image, detector: Detector, exposure: Exposure) -> None:
    """Cover what the collimator's leaves close, in place."""
    size = len(grey)
    top, bottom, left, right = (round(share * size) for share in exposure.collimation)
    grey[:top], grey[size - bottom :] = detector.shutter, detector.shutter
    grey[:, :left], grey[:, size - right :] = detector.shutter, detector.shutter


def burn_marker(grey: Image, detector: Detector, exposure: Exposure) -> None:
    """Burn in the side letter, in place."""
    side, corner = detector.marker
    mask = letter(side, round(detector.marker_mm / detector.field_mm * len(grey)))
    top, bottom, left, right = exposure.collimation
    # Technicians place the letter inside the open field.
    inwards = (top if "top" in corner else bottom, left if "left" in corner else right)
    shift = (exposure.marker_jitter[0] + inwards[0], exposure.marker_jitter[1] + inwards[1])
    row, column = place_of(corner, shift, (mask.shape[0], mask.shape[1]), len(grey))
    grey[row : row + mask.shape[0], column : column + mask.shape[1]][mask] = 0.97
