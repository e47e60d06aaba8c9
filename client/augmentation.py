"""Random changes of training images: drawn, then applied, to a whole batch at once.

The input named ``image`` is changed and no other; targets do not move with it.

Legend of shapes: B cases; images are (B, 1, rows, columns).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from fedcad.shared.config.study import AugmentationConfig
from fedcad.shared.errors import UnsupportedError

IMAGE = "image"
"""Name of the input that augmentation changes."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a batch; all float32, shape (B,).

    Attributes:
        angle: Rotation in radians.
        shift_rows: Shift as a fraction of the height.
        shift_columns: Shift as a fraction of the width.
        zoom: Magnification.
        brightness: Factor on values.
        mirror: −1 where left and right are exchanged, else 1.
    """

    angle: Tensor
    shift_rows: Tensor
    shift_columns: Tensor
    zoom: Tensor
    brightness: Tensor
    mirror: Tensor


def draw(config: AugmentationConfig, cases: int, generator: torch.Generator) -> Drawn:
    """Draw the changes of a batch; the same numbers are consumed whatever is switched on."""
    unit = torch.rand((6, cases), generator=generator) * 2 - 1
    flips = torch.where(unit[5] < 0, -1.0, 1.0) if config.horizontal_flip else torch.ones(cases)
    return Drawn(
        angle=unit[0] * math.radians(config.rotation_degrees),
        shift_rows=unit[1] * config.shift,
        shift_columns=unit[2] * config.shift,
        zoom=1 + unit[3] * config.zoom,
        brightness=1 + unit[4] * config.brightness,
        mirror=flips,
    )


def apply(drawn: Drawn, images: Tensor) -> Tensor:
    """Apply drawn changes: brightness, then one bilinear resampling, 0 outside the image.

    0 is black for display values. For standardised images it is the image's mean, and the factor on values
    changes the contrast.
    """
    scaled = images * drawn.brightness.view(-1, 1, 1, 1)
    cos, sin = torch.cos(drawn.angle) / drawn.zoom, torch.sin(drawn.angle) / drawn.zoom
    row_x = torch.stack([cos * drawn.mirror, -sin, 2 * drawn.shift_columns], dim=1)
    row_y = torch.stack([sin * drawn.mirror, cos, 2 * drawn.shift_rows], dim=1)
    grid = affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
    return grid_sample(scaled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def augment(
    config: AugmentationConfig, inputs: Mapping[str, Tensor], generator: torch.Generator
) -> Mapping[str, Tensor]:
    """Return a batch's inputs with changed images, or as they are where the study changes nothing.

    Raises:
        UnsupportedError: The study changes images and the cases have none.
    """
    if not is_active(config):
        return inputs
    if IMAGE not in inputs:
        raise UnsupportedError(
            f"the study has an augmentation, and its cases have no input {IMAGE!r}; they have "
            f"{', '.join(sorted(inputs))}. Leave the augmentation out of the study"
        )
    images = inputs[IMAGE]
    return {**inputs, IMAGE: apply(draw(config, len(images), generator), images)}


def is_active(config: AugmentationConfig) -> bool:
    """Whether a study changes its training images at all."""
    return config != AugmentationConfig()
