"""DenseNet121 for images.

Shapes: B cases, C channels, H rows, W columns.

References:
    Huang, Liu, van der Maaten and Weinberger (2017), "Densely connected convolutional networks",
    arXiv:1608.06993, table 1 (DenseNet-121, growth rate 32, bottleneck, compression 0.5).
"""

import torch
from torch import Tensor, nn

from fedcad.shared.config.models import DenseNet121, Norm
from fedcad.shared.models.initialisation import initialise_convolutions
from fedcad.shared.models.norms import make_norm, require_pixels

_LAYERS_PER_BLOCK = (6, 12, 24, 16)
_STEM = 64
_GROWTH = 32
_BOTTLENECK = 4 * _GROWTH


def _norm_and_activation(norm: Norm, channels: int) -> tuple[nn.Module, nn.Module]:
    """Return what stands before each convolution of the network."""
    return make_norm(norm, channels), nn.ReLU()


class DenseLayer(nn.Module):
    """Norm, 1×1, norm, 3×3: adds 32 feature maps, from (B, C, H, W) to (B, C + 32, H, W)."""

    def __init__(self, inputs: int, *, norm: Norm) -> None:
        """Build the layer.

        Args:
            inputs: Channels that arrive.
            norm: Normalisation before each convolution.
        """
        super().__init__()
        bias = norm == "none"
        self.norm1, self.activation1 = _norm_and_activation(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, _BOTTLENECK, 1, bias=bias)
        self.norm2, self.activation2 = _norm_and_activation(norm, _BOTTLENECK)
        self.conv2 = nn.Conv2d(_BOTTLENECK, _GROWTH, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the new feature maps behind it, the paper's equation 2."""
        new = self.conv1(self.activation1(self.norm1(x)))
        new = self.conv2(self.activation2(self.norm2(new)))
        return torch.cat((x, new), dim=1)


class DenseNet121Classifier(nn.Module):
    """DenseNet121 from images (B, channels, H, W) to logits (B, classes)."""

    def __init__(self, *, classes: int, channels: int, norm: Norm) -> None:
        """Build the network.

        Args:
            classes: Number of classes.
            channels: Channels of the image.
            norm: Normalisation before each convolution, after the stem and before the classifier.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _STEM, 7, stride=2, padding=3, bias=norm == "none")
        self.norm1, self.activation1 = _norm_and_activation(norm, _STEM)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Module] = []
        width = _STEM
        for block, count in enumerate(_LAYERS_PER_BLOCK):
            if block > 0:
                layers.append(_transition(width, norm=norm))
                width //= 2
            for _ in range(count):
                layers.append(DenseLayer(width, norm=norm))
                width += _GROWTH
        self.layers = nn.Sequential(*layers)
        self.norm2, self.activation2 = _norm_and_activation(norm, width)
        self.classifier = nn.Linear(width, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, channels, H, W)."""
        x = self.conv1(x)
        x = self.layers(self.pool1(self.activation1(self.norm1(x))))
        x = self.activation2(self.norm2(x))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def build_densenet121(config: DenseNet121, *, classes: int, size: int, channels: int) -> nn.Module:
    """Build DenseNet121.

    With ``norm: batch``, 3 channels and 1000 classes it has the published 7,978,856 parameters; group and
    instance normalisation have the same number.

    Args:
        config: Knobs.
        classes: Number of classes.
        size: Height and width of the input in pixels.
        channels: Channels of the input.

    Returns:
        A network from (B, channels, size, size) to logits (B, classes).

    Raises:
        ConfigError: Instance normalisation would meet maps of one pixel.
    """
    require_pixels(config.norm, size // 32, network=config.name)
    return DenseNet121Classifier(classes=classes, channels=channels, norm=config.norm)


def _transition(width: int, *, norm: Norm) -> nn.Module:
    """Halve channels, rows and columns between two dense blocks."""
    halving = nn.Conv2d(width, width // 2, 1, bias=norm == "none")
    return nn.Sequential(*_norm_and_activation(norm, width), halving, nn.AvgPool2d(2))
