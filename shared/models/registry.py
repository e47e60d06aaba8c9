"""Every network that a study may name.

Adding one takes a configuration class in ``fedcad.shared.config.models``, a file beside this one with a
builder, one entry below, and a test; ``tests/contracts/test_models.py`` holds it to the contract of all.
A network of another library (monai, for instance) is imported inside its builder: importing it takes seconds
that no other network should pay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from fedcad.shared.config.models import (
    ConfigurableCNN,
    ConvolutionConfig,
    CovidNet,
    DenseNet121,
    LogisticRegression,
    ModelConfig,
    ResNet18,
)
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.cnn import build_cnn
from fedcad.shared.models.covid_net import build_covid_net
from fedcad.shared.models.densenet import build_densenet121
from fedcad.shared.models.logistic_regression import build_logistic_regression
from fedcad.shared.models.resnet import build_resnet18

SMALLEST_SIZE = 32
"""Every network works from this height and width on, in pixels."""
_MOST_PARAMETERS = 500_000_000


@dataclass(frozen=True)
class NetworkEntry:
    """One network.

    Attributes:
        build: Builder, called with the configuration and ``classes``, ``size`` and ``channels`` by keyword.
        example: A configuration to list and test it with.
        description: What it is, in a line.
    """

    build: Callable[..., nn.Module]
    example: ModelConfig
    description: str


NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType(
    {
        "cnn": NetworkEntry(
            build=build_cnn,
            example=ConfigurableCNN(
                name="cnn", convolutions=tuple(ConvolutionConfig(features=n) for n in (16, 32, 64, 128))
            ),
            description="plain CNN from knobs (here 16, 32, 64, 128 features)",
        ),
        "covid-net": NetworkEntry(
            build=build_covid_net,
            example=CovidNet(name="covid-net"),
            description="COVID-Net, Wang et al. 2020 (here small)",
        ),
        "densenet121": NetworkEntry(
            build=build_densenet121,
            example=DenseNet121(name="densenet121"),
            description="DenseNet121, Huang et al. 2017",
        ),
        "logistic-regression": NetworkEntry(
            build=build_logistic_regression,
            example=LogisticRegression(name="logistic-regression"),
            description="logistic regression on image statistics, the shallow baseline",
        ),
        "resnet18": NetworkEntry(
            build=build_resnet18,
            example=ResNet18(name="resnet18"),
            description="ResNet18, He et al. 2016",
        ),
    }
)


def build_model(config: ModelConfig, *, classes: int, size: int, channels: int = 1) -> nn.Module:
    """Build a network, untrained.

    Parameters are drawn from torch's global generator only; ``torch.manual_seed(s)`` before fixes them.

    Args:
        config: The study's ``model`` section.
        classes: Number of classes, at least 2.
        size: Height and width of the input in pixels, at least 32.
        channels: Channels of the input, at least 1.

    Returns:
        A network in training mode from float32 (B, channels, size, size) to logits float32 (B, classes).

    Raises:
        ConfigError: The size is too small, the knobs do not fit it, or the network would be too large.
        ValueError: ``classes`` is below 2 or ``channels`` below 1.
    """
    if classes < 2 or channels < 1:
        raise ValueError(f"got {classes} classes and {channels} channels; need at least 2 and 1")
    if size < SMALLEST_SIZE:
        raise ConfigError(
            f"preprocessing.size is {size}, but networks need at least {SMALLEST_SIZE} pixels. Raise it"
        )
    build = NETWORKS[config.name].build
    with torch.device("meta"):
        _refuse_giant(build(config, classes=classes, size=size, channels=channels), name=config.name)
    return build(config, classes=classes, size=size, channels=channels)


def _refuse_giant(outline: nn.Module, *, name: str) -> None:
    """Refuse, before any memory is taken, a network that no site could hold several copies of."""
    parameters = sum(parameter.numel() for parameter in outline.parameters())
    if parameters > _MOST_PARAMETERS:
        raise ConfigError(
            f"model {name} would have {parameters:,} parameters; at most {_MOST_PARAMETERS:,} are allowed. "
            "Use global pooling instead of flattening, fewer neurons or features, or a smaller "
            "preprocessing.size"
        )
