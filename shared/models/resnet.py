"""ResNet18 for images.

Shapes: B cases, C channels, H rows, W columns.

References:
    He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", arXiv:1512.03385, table 1.
"""

from torch import Tensor, nn

from fedcad.shared.config.models import Norm, ResNet18
from fedcad.shared.models.initialisation import initialise_convolutions, initialise_projections
from fedcad.shared.models.norms import make_norm, require_pixels

_WIDTHS = (64, 128, 256, 512)
_BLOCKS_PER_STAGE = 2


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, from (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm) -> None:
        """Build the block.

        Args:
            inputs: Channels that arrive.
            outputs: Channels that leave.
            stride: Stride of the first convolution and of the shortcut.
            norm: Normalisation after each convolution.
        """
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
        self.norm1 = make_norm(norm, outputs)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=bias)
            self.shortcut = nn.Sequential(projection, make_norm(norm, outputs))
        self.activation2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(residual(x) + shortcut(x)), the paper's equations 1 and 2."""
        residual = self.activation1(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        total: Tensor = self.activation2(residual + self.shortcut(x))
        return total


class ResNet18Classifier(nn.Module):
    """ResNet18 from images (B, channels, H, W) to logits (B, classes)."""

    def __init__(self, *, classes: int, channels: int, norm: Norm) -> None:
        """Build the network.

        Args:
            classes: Number of classes.
            channels: Channels of the image.
            norm: Normalisation after each of the 20 convolutions.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], 7, stride=2, padding=3, bias=norm == "none")
        self.norm1 = make_norm(norm, _WIDTHS[0])
        self.activation1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        blocks: list[nn.Module] = []
        inputs = _WIDTHS[0]
        for outputs in _WIDTHS:
            for _ in range(_BLOCKS_PER_STAGE):
                blocks.append(ResidualBlock(inputs, outputs, stride=outputs // inputs, norm=norm))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)
        initialise_convolutions(self)
        if norm == "none":
            _damp_residuals(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, channels, H, W)."""
        x = self.conv1(x)
        x = self.pool1(self.activation1(self.norm1(x)))
        logits: Tensor = self.classifier(self.blocks(x).mean(dim=(2, 3)))
        return logits


def build_resnet18(config: ResNet18, *, classes: int, size: int, channels: int) -> nn.Module:
    """Build ResNet18.

    With ``norm: batch``, 3 channels and 1000 classes it has the published 11,689,512 parameters; group and
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
    require_pixels(config.norm, -(-size // 32), network=config.name)
    return ResNet18Classifier(classes=classes, channels=channels, norm=config.norm)


def _damp_residuals(blocks: list[nn.Module]) -> None:
    """Shrink residuals, so that without norms the variance grows by e over all blocks, not by 2 in each."""
    last = [block.conv2 for block in blocks if isinstance(block, ResidualBlock)]
    initialise_projections(last, gain=len(last) ** -0.5)
