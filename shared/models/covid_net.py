"""COVID-Net for chest X-rays, written from the paper.

Shapes: B cases, C channels, H rows, W columns.

What the paper gives: the PEPX block (figure 2), a 7×7 stem, four stages of 3, 4, 6 and 3 blocks with 56, 112,
216 and 424 channels on maps of a quarter to a thirty-second of the image, long-range connections inside a
stage through 1×1 convolutions, and a fully-connected head on the flattened last map.

What it leaves open, and what we chose: the stem is as wide as the first stage; a stage passes on the sum of
its blocks (each block sees the sum of those before it); expansion, depth-wise convolution and extension are
normalised, and rectifiers follow the first two only, as in Sandler et al. 2018, arXiv:1801.04381 (with one
behind the extension too, all images look alike after 16 blocks and training is slow); long-range projections
are normalised; maps are halved by max-pooling between stages; 512 neurons in the flattened head.

How ours relates to the published size, 11.75 M parameters and 7.50 G multiply-accumulates: large with the
flattened head has 12,067,051 parameters at 3 × 224 × 224 pixels and 3 classes, 2.7 % more. Most (10.6 M) are
the head's first layer, whose width the paper does not print, so the count says little about the rest.
Multiply-accumulates come to 0.38 G at 224 pixels and 1.72 G at 480, well below the published 7.50 G: the
published network was wider or counted otherwise somewhere that the paper does not show. This is therefore
COVID-Net's design, not a copy, and the published weights do not fit it.

References:
    Wang, Lin and Wong (2020), "COVID-Net: a tailored deep convolutional neural network design for detection
    of COVID-19 cases from chest X-ray images", Scientific Reports 10:19549, arXiv:2003.09871.
"""

from torch import Tensor, nn

from fedcad.shared.config.models import CovidNet, Norm
from fedcad.shared.models.initialisation import initialise_convolutions, initialise_projections
from fedcad.shared.models.memory_format import channels_innermost
from fedcad.shared.models.norms import make_norm, require_pixels

_STAGES = ((3, 56), (4, 112), (6, 216), (3, 424))
"""Blocks and channels of each stage."""
_STEM = 56
_REDUCTION = 32
_HIDDEN = 512


class PEPX(nn.Sequential):
    """Projection, expansion, projection, extension: from (B, inputs, H, W) to (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm) -> None:
        """Build the block.

        Args:
            inputs: Channels n that arrive.
            outputs: Channels that leave.
            norm: Normalisation before each rectifier.
        """
        narrow, wide = inputs // 2, 3 * inputs // 4
        bias = norm == "none"
        super().__init__()
        self.projection1 = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.expansion = nn.Conv2d(narrow, wide, 1, bias=bias)
        self.expansion_norm = make_norm(norm, wide)
        self.expansion_activation = nn.ReLU()
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=bias)
        self.depthwise_norm = make_norm(norm, wide)
        self.depthwise_activation = nn.ReLU()
        self.projection2 = nn.Conv2d(wide, narrow, 1, bias=False)
        self.extension = nn.Conv2d(narrow, outputs, 1, bias=bias)
        self.extension_norm = make_norm(norm, outputs)


class Stage(nn.Module):
    """PEPX blocks on maps of one size, each fed by the sum of those before it."""

    def __init__(self, inputs: int, outputs: int, *, blocks: int, norm: Norm, long_range: bool) -> None:
        """Build the stage.

        Args:
            inputs: Channels that arrive.
            outputs: Channels of every block.
            blocks: Number of PEPX blocks.
            norm: Normalisation inside the blocks.
            long_range: Add a 1×1 projection of the stage's input to everything behind the first block.
        """
        super().__init__()
        self.long_range = None
        if long_range:
            projection = nn.Conv2d(inputs, outputs, 1, bias=norm == "none")
            self.long_range = nn.Sequential(projection, make_norm(norm, outputs))
        self.blocks = nn.ModuleList(
            PEPX(inputs if block == 0 else outputs, outputs, norm=norm) for block in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of all blocks (B, outputs, H, W) of the input (B, inputs, H, W)."""
        total = None if self.long_range is None else self.long_range(x)
        for block in self.blocks:
            new = block(x)
            total = new if total is None else total + new
            x = total
        return x


class CovidNetClassifier(nn.Module):
    """COVID-Net from images (B, channels, size, size) to logits (B, classes)."""

    def __init__(self, config: CovidNet, *, classes: int, size: int, channels: int) -> None:
        """Build the network; see :func:`build_covid_net`."""
        super().__init__()
        norm, long_range = config.norm, config.form == "large"
        self.stem = nn.Conv2d(channels, _STEM, 7, stride=2, padding=3, bias=norm == "none")
        self.stem_norm = make_norm(norm, _STEM)
        self.stem_activation = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        widths = (_STEM, *(width for _, width in _STAGES))
        self.stages = nn.ModuleList(
            Stage(inputs, outputs, blocks=blocks, norm=norm, long_range=long_range)
            for inputs, (blocks, outputs) in zip(widths, _STAGES, strict=False)
        )
        pixels = ((size + 1) // 2 // 16) ** 2
        self.head = _flatten_head(widths[-1] * pixels) if config.head == "flatten" else None
        self.classifier = nn.Linear(widths[-1] if self.head is None else _HIDDEN, classes)
        initialise_convolutions(self)
        if norm == "none":
            _damp_sums(self.stages)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, channels, size, size)."""
        x = self.stem_norm(channels_innermost(self.stem(x)))
        # Pooling before the rectifier gives the same numbers for a quarter of the work.
        x = self.stem_activation(self.pool(x))
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.pool(x))
        x = x.mean(dim=(2, 3)) if self.head is None else self.head(x)
        logits: Tensor = self.classifier(x)
        return logits


def build_covid_net(config: CovidNet, *, classes: int, size: int, channels: int) -> nn.Module:
    """Build COVID-Net.

    Args:
        config: Knobs.
        classes: Number of classes.
        size: Height and width of the input in pixels, at least 32.
        channels: Channels of the input.

    Returns:
        A network from (B, channels, size, size) to logits (B, classes).

    Raises:
        ConfigError: Instance normalisation would meet maps of one pixel.
    """
    require_pixels(config.norm, size // _REDUCTION, network=config.name)
    return CovidNetClassifier(config, classes=classes, size=size, channels=channels)


def _flatten_head(features: int) -> nn.Module:
    """Build the paper's hidden fully-connected layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(features, _HIDDEN), nn.ReLU())


def _damp_sums(stages: nn.ModuleList) -> None:
    """Draw linear layers so that without norms a stage's sum does not double with each block."""
    for stage in stages:
        if isinstance(stage, Stage):
            projections = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
            expansions = [block.expansion for block in stage.blocks if isinstance(block, PEPX)]
            extensions = [block.extension for block in stage.blocks if isinstance(block, PEPX)]
            initialise_projections(m for m in projections if m not in expansions + extensions)
            initialise_projections(extensions, gain=len(stage.blocks) ** -0.5)
