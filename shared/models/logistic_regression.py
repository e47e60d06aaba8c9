"""Logistic regression on statistics of the image: the shallow baseline of "do we need a deep model?".

Shapes: B cases, C channels, H rows, W columns, G cells along a side, K bins, F features.

The features have no parameters, so the loss is convex in all that is trained.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedcad.shared.config.models import LogisticRegression
from fedcad.shared.errors import ConfigError

# Fixed scales, never taken from data (that would be one more release): display values lie in 0 to 1.
_MEAN_CENTRE, _MEAN_SCALE = 0.5, 0.25
_DEVIATION_CENTRE, _DEVIATION_SCALE = 0.1, 0.1
_HISTOGRAM_RANGE = 3.0
"""The histogram spans the image's mean ± this many deviations; what lies outside counts in the end bins."""
_SMALLEST_DEVIATION = 1e-3


class ImageStatistics(nn.Module):
    """Features (B, F) of images (B, C, H, W), F = C · (2 G² + K).

    Mean and deviation of each of G × G cells, and a histogram of the image's values standardised by its own
    mean and deviation: shape of the distribution there, brightness and contrast in the cells.
    """

    def __init__(self, *, grid: int, bins: int) -> None:
        """Build the features.

        Args:
            grid: Cells G along a side.
            bins: Bins K of the histogram.
        """
        super().__init__()
        self.grid = grid
        self.bins = bins

    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, F), each of the order of 1."""
        mean = image.mean(dim=(2, 3), keepdim=True)
        centred = image - mean
        cell_mean, cell_deviation = self._cells(centred)
        # The bound comes before the root, whose slope at 0 is infinite.
        variance = centred.square().mean(dim=(2, 3), keepdim=True).clamp_min(_SMALLEST_DEVIATION**2)
        features = (
            (cell_mean + mean - _MEAN_CENTRE) / _MEAN_SCALE,
            (cell_deviation - _DEVIATION_CENTRE) / _DEVIATION_SCALE,
            soft_histogram(centred / variance.sqrt(), bins=self.bins) * self.bins - 1.0,
        )
        return torch.cat([feature.flatten(start_dim=1) for feature in features], dim=1)

    def _cells(self, centred: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (B, C, G, G) of each cell of an image whose mean was removed."""
        mean = functional.adaptive_avg_pool2d(centred, self.grid)
        square = functional.adaptive_avg_pool2d(centred.square(), self.grid)
        variance = (square - mean.square()).clamp_min(_SMALLEST_DEVIATION**2)
        return mean, variance.sqrt()


def soft_histogram(values: Tensor, *, bins: int) -> Tensor:
    """Return the share of each bin, a value between two bin centres counting in both by nearness.

    Soft, so that a saliency map can ask how a pixel changes the answer.

    Args:
        values: (B, C, H, W), standardised; clamped to ± 3.
        bins: Bins K, at least 2; the centres of the first and the last are − 3 and 3.

    Returns:
        Shares (B, C, K), at least 0, summing to 1 for each image and channel.
    """
    position = (values.clamp(-_HISTOGRAM_RANGE, _HISTOGRAM_RANGE) + _HISTOGRAM_RANGE) * (
        (bins - 1) / (2 * _HISTOGRAM_RANGE)
    )
    # One pass for each bin keeps memory at one image and the sum's order fixed on every device.
    shares = [functional.relu(1.0 - (position - k).abs()).mean(dim=(2, 3)) for k in range(bins)]
    return torch.stack(shares, dim=2)


def build_logistic_regression(
    config: LogisticRegression, *, classes: int, size: int, channels: int
) -> nn.Module:
    """Build the statistics and one linear layer, which starts at zero: every class equally likely.

    Args:
        config: Knobs.
        classes: Number of classes.
        size: Height and width of the input in pixels.
        channels: Channels of the input.

    Returns:
        A network from (B, channels, size, size) to logits (B, classes).

    Raises:
        ConfigError: The cells would be smaller than 2 × 2 pixels.
    """
    if 2 * config.grid > size:
        raise ConfigError(
            f"model.grid is {config.grid}, but an image of {size} × {size} pixels holds at most "
            f"{size // 2} cells of 2 × 2 pixels along a side. Lower model.grid or raise preprocessing.size"
        )
    features = channels * (2 * config.grid**2 + config.histogram_bins)
    linear = nn.Linear(features, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    statistics = ImageStatistics(grid=config.grid, bins=config.histogram_bins)
    return nn.Sequential(statistics, linear)
