"""A plain convolutional network made of the study file's knobs.

Shapes: B cases, C channels, H rows, W columns.

Each convolution is followed by norm, activation and pooling; then global average or flattening, hidden
fully-connected layers, and the classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from fedcad.shared.config.models import ConfigurableCNN, ConvolutionConfig, PoolingConfig
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.initialisation import initialise_convolutions
from fedcad.shared.models.memory_format import channels_innermost
from fedcad.shared.models.norms import make_norm, require_pixels

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class GlobalAverage(nn.Module):
    """The mean over a whole map, from (B, C, H, W) to (B, C); a plain mean, deterministic on every device."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C)."""
        return x.mean(dim=(2, 3))


class ChannelsInnermost(nn.Module):
    """The map (B, C, H, W) itself, laid out with channels innermost in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return channels_innermost(x)


def sizes_after(config: ConfigurableCNN, size: int) -> list[tuple[int, int]]:
    """Return height (= width) of the map after each convolution and after its pooling.

    Args:
        config: Knobs.
        size: Height and width of the input in pixels.

    Returns:
        For each convolution: pixels after it, pixels after its pooling.

    Raises:
        ConfigError: A pooling window does not fit into the map that reaches it; names the layer, the size
            that arrives and what to change.
    """
    sizes = []
    arriving = size
    for number, convolution in enumerate(config.convolutions, start=1):
        convolved = -(-arriving // convolution.stride)
        pooled = _pooled(convolved, pooling=config.pooling, number=number, size=size)
        sizes.append((convolved, pooled))
        arriving = pooled
    return sizes


def build_cnn(config: ConfigurableCNN, *, classes: int, size: int, channels: int) -> nn.Module:
    """Build the network from its knobs.

    Args:
        config: Knobs.
        classes: Number of classes.
        size: Height and width of the input in pixels.
        channels: Channels of the input.

    Returns:
        A network from (B, channels, size, size) to logits (B, classes).

    Raises:
        ConfigError: The feature map shrinks below one pixel, or to one pixel before an instance norm, or
            before a group norm of a single feature.
    """
    sizes = sizes_after(config, size)
    require_pixels(config.norm, min(convolved for convolved, _ in sizes), network=config.name)
    _require_values(config, [convolved for convolved, _ in sizes])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for number, convolution in enumerate(config.convolutions, start=1):
        layers.update(_convolution_block(config, inputs, number=number))
        inputs = convolution.features
    pixels = 1 if config.global_pooling else sizes[-1][1] ** 2
    layers["to_vector"] = GlobalAverage() if config.global_pooling else nn.Flatten()
    layers.update(_fully_connected(config, inputs * pixels, classes))
    network = nn.Sequential(layers)
    initialise_convolutions(network)
    return network


def _require_values(config: ConfigurableCNN, pixels: Sequence[int]) -> None:
    """Refuse a group norm of one feature on a map of one pixel: it makes a constant of a single value.

    Only a convolution with one feature has groups of one, see :func:`group_count`.
    """
    for number, (convolution, convolved) in enumerate(zip(config.convolutions, pixels, strict=True), start=1):
        if config.norm == "group" and convolution.features == 1 and convolved == 1:
            raise ConfigError(
                f"model.convolutions: convolution {number} has 1 feature on a map of 1 × 1 pixel, a single "
                "value, which model.norm group makes constant; at least 2 values are needed. Give it 2 or "
                "more features, raise preprocessing.size, reduce strides or pooling, or set model.norm none"
            )


def _pooled(convolved: int, *, pooling: PoolingConfig, number: int, size: int) -> int:
    """Return the pixels after one pooling."""
    if pooling.kind == "none":
        return convolved
    if convolved < pooling.window:
        raise ConfigError(
            f"model.convolutions: a map of {convolved} × {convolved} pixels arrives at the pooling after "
            f"convolution {number}, whose window is {pooling.window} × {pooling.window}; the input is "
            f"{size} × {size}. Use at most {number - 1} convolutions with this pooling, lower "
            "model.pooling.window or stride, or a convolution's stride, or raise preprocessing.size"
        )
    return (convolved - pooling.window) // pooling.stride + 1


def _convolution_block(config: ConfigurableCNN, inputs: int, *, number: int) -> OrderedDict[str, nn.Module]:
    """Return one convolution with norm, activation and pooling."""
    convolution = config.convolutions[number - 1]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if convolution.kernel % 2 == 0:
        # An even kernel needs one pixel more behind than before to keep the size at stride 1.
        before, behind = (convolution.kernel - 1) // 2, convolution.kernel // 2
        layers[f"padding{number}"] = nn.ZeroPad2d((before, behind, before, behind))
    layers[f"convolution{number}"] = _convolution(convolution, inputs, bias=config.norm == "none")
    if number == 1:
        layers["channels_innermost"] = ChannelsInnermost()
    if config.norm != "none":
        layers[f"norm{number}"] = make_norm(config.norm, convolution.features)
    layers[f"activation{number}"] = _ACTIVATIONS[config.activation]()
    if config.pooling.kind != "none":
        kind = nn.MaxPool2d if config.pooling.kind == "max" else nn.AvgPool2d
        layers[f"pooling{number}"] = kind(config.pooling.window, stride=config.pooling.stride)
    return layers


def _convolution(convolution: ConvolutionConfig, inputs: int, *, bias: bool) -> nn.Conv2d:
    """Return the convolution; an even kernel is padded by the layer before it."""
    padding = convolution.kernel // 2 if convolution.kernel % 2 == 1 else 0
    return nn.Conv2d(
        inputs,
        convolution.features,
        convolution.kernel,
        stride=convolution.stride,
        padding=padding,
        bias=bias,
    )


def _fully_connected(config: ConfigurableCNN, features: int, classes: int) -> OrderedDict[str, nn.Module]:
    """Return hidden layers and classifier, each behind the dropout."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = features
    for number, neurons in enumerate(config.fully_connected, start=1):
        if config.dropout > 0:
            layers[f"dropout{number}"] = nn.Dropout(config.dropout)
        layers[f"hidden{number}"] = nn.Linear(inputs, neurons)
        layers[f"hidden_activation{number}"] = _ACTIVATIONS[config.activation]()
        inputs = neurons
    if config.dropout > 0:
        layers["dropout"] = nn.Dropout(config.dropout)
    layers["classifier"] = nn.Linear(inputs, classes)
    return layers
