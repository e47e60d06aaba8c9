"""From display values to the network's input, in two steps: int16 for the cache, float32 for a batch.

Why two: everything that needs the whole image (crop, square, resize) is done once and kept; what is cheap is
done per batch, so that it needs no second cache.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.shared.config.study import PreprocessingConfig

PREPROCESSING_VERSION = 1
"""Raised whenever pixels would come out differently: for reading as well as for preprocessing."""

FULL_SCALE = 32767
"""int16 value of display value 1."""

_SMALLEST_STD = 1e-6


def preprocess(display: NDArray[np.float32], config: PreprocessingConfig) -> NDArray[np.int16]:
    """Crop, make square and resize.

    Args:
        display: Display values 0 to 1, shape (rows, columns).
        config: The study's preprocessing; ``intensity`` is applied by :func:`to_network_input`.

    Returns:
        int16, shape (size, size); 0 is black and 32767 is white.

    Guarantees:
        A constant image stays constant; no value leaves 0 to 32767. The resampling filter widens with the
        reduction (antialiasing), so that fine noise averages out instead of folding into false structure.

    Raises:
        UnusableFile: Nothing is left after cropping.
    """
    square = _make_square(_crop_top(display, config.crop_top), config.square)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(square))[None, None],
        size=(config.size, config.size),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0, 0]
    return resized.mul_(FULL_SCALE).round_().clamp_(0, FULL_SCALE).to(torch.int16).numpy()


def _crop_top(display: NDArray[np.float32], fraction: float) -> NDArray[np.float32]:
    """Drop a fraction of the rows at the top, as COVID-Net does to be rid of markers."""
    cropped = display[round(display.shape[0] * fraction) :]
    if not cropped.size:
        raise UnusableFile(Reason.EMPTY_IMAGE, "no row is left after preprocessing.crop_top")
    return cropped


def _make_square(display: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    """Centre-crop or pad with black to a square; ``stretch`` leaves that to the resizing."""
    rows, columns = display.shape
    if how == "crop":
        side = min(rows, columns)
        top, left = (rows - side) // 2, (columns - side) // 2
        return display[top : top + side, left : left + side]
    if how == "pad":
        side = max(rows, columns)
        top, left = (side - rows) // 2, (side - columns) // 2
        square = np.zeros((side, side), dtype=np.float32)
        square[top : top + rows, left : left + columns] = display
        return square
    return display


def to_network_input(cached: Tensor, config: PreprocessingConfig) -> Tensor:
    """Return network inputs of cached images.

    Args:
        cached: int16, shape (B, size, size), from :func:`preprocess`.
        config: The study's preprocessing.

    Returns:
        float32, shape (B, 1, size, size): 0 to 1, or with ``standardise`` zero mean and unit (population)
        variance per image; a constant image becomes 0.
    """
    display = cached.to(torch.float32).div_(FULL_SCALE)[:, None]
    if config.intensity == "display":
        return display
    centred = display - display.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centred / deviation.clamp_min(_SMALLEST_STD)
