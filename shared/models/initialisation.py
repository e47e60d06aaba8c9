"""How parameters start.

Everything is drawn from torch's global generator, in the order of the modules: ``torch.manual_seed(s)``
before building fixes every parameter.
"""

from collections.abc import Iterable

from torch import nn


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution below a module so that variance is kept through rectifiers; biases are zero.

    Fan-in is used throughout: the fan-out that torch computes ignores groups, and would start depthwise
    convolutions near zero.

    Args:
        module: A network; its linear layers and norms keep torch's own start.

    References:
        He et al. (2015), arXiv:1502.01852, equation 10.
    """
    for layer in module.modules():
        # Outlines on the meta device have no numbers, and drawing there imports a second's worth of modules.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_projections(layers: Iterable[nn.Conv2d], *, gain: float = 1.0) -> None:
    """Draw convolutions that no rectifier follows, so that variance is multiplied by gain².

    Args:
        layers: Convolutions.
        gain: Factor on the deviation.
    """
    for layer in layers:
        if not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="linear")
            layer.weight.data.mul_(gain)
