"""Fields on pixel grids: resampling and random textures that look the same at every image size."""

import numpy as np
import scipy.fft

from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.phantom.projector import Image


def _mix(image: Image, count: int) -> Image:
    """Interpolate rows linearly to ``count`` rows with aligned outer edges."""
    position = np.clip((np.arange(count) + 0.5) * (len(image) / count) - 0.5, 0.0, len(image) - 1.0)
    lower = np.minimum(position.astype(np.intp), max(len(image) - 2, 0))
    share = (position - lower).astype(np.float32)[:, None]
    upper = np.minimum(lower + 1, len(image) - 1)
    below = image[lower]
    return np.asarray(below + (image[upper] - below) * share)


def resize(image: Image, rows: int, columns: int) -> Image:
    """Interpolate (rows, columns) bilinearly; both grids cover the same area."""
    if image.shape == (rows, columns):
        return image
    return np.ascontiguousarray(_mix(_mix(image, rows).T, columns).T)


def block_mean(image: Image, factor: int) -> Image:
    """Average blocks of factor x factor pixels, as a detector element does with what falls on it."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    return np.asarray(image.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float32))


def frequencies(rows: int, columns: int, spacing_mm: float) -> Image:
    """Return the radial frequency of every DCT-II coefficient in cycles per mm, shape (rows, columns)."""
    down = np.arange(rows, dtype=np.float32) / np.float32(2 * rows * spacing_mm)
    across = np.arange(columns, dtype=np.float32) / np.float32(2 * columns * spacing_mm)
    return np.sqrt(down[:, None] ** 2 + across[None, :] ** 2)


def filtered(image: Image, transfer: Image) -> Image:
    """Multiply the DCT-II of an image by a transfer function: a symmetric filter with mirrored borders."""
    spectrum = scipy.fft.dctn(image, norm="ortho")
    return np.asarray(scipy.fft.idctn(spectrum * transfer, norm="ortho"), dtype=np.float32)


def gaussian_transfer(frequency: Image, sigma_mm: float) -> Image:
    """Return the transfer function of a Gaussian blur: exp(-2 (pi sigma f)^2)."""
    return np.asarray(np.exp(np.float32(-2.0 * (np.pi * sigma_mm) ** 2) * frequency**2), dtype=np.float32)


def cloud(seed: int, points: int, slope: float) -> Image:
    """Return a random field with amplitude spectrum 1 / (1 + f)^slope, mean 0, deviation 1.

    Args:
        seed: Seed of the field.
        points: Rows and columns; independent of the image size, so that the field is too.
        slope: 0 is white noise; natural tissue is near 1.5 (Burgess 1999, power spectra of 1 / f^3).
    """
    white = numpy_generator(seed, "phantom-cloud").standard_normal((points, points), dtype=np.float32)
    # Spacing of half a unit makes the lowest DCT frequency 1 / points; times points counts half waves.
    waves = frequencies(points, points, 0.5) * np.float32(points)
    field = scipy.fft.idctn(white / (1.0 + waves) ** np.float32(slope), norm="ortho")
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)
