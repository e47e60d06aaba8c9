"""The networks that a study may name, each with its knobs."""

from typing import Annotated, Literal

from pydantic import Field

from fedcad.shared.config.frozen import Frozen

Norm = Literal["group", "instance", "batch", "none"]


class ConvolutionConfig(Frozen):
    """One convolution of the configurable CNN."""

    features: Annotated[int, Field(ge=1, le=4096)]
    """Output channels."""
    kernel: Annotated[int, Field(ge=1, le=31)] = 3
    """Kernel size in pixels; padded so that stride 1 keeps the size."""
    stride: Annotated[int, Field(ge=1, le=8)] = 1
    """Stride in pixels."""


class PoolingConfig(Frozen):
    """The pooling after each convolution."""

    kind: Literal["max", "average", "none"] = "max"
    """Kind of pooling."""
    window: Annotated[int, Field(ge=1, le=16)] = 2
    """Window in pixels."""
    stride: Annotated[int, Field(ge=1, le=16)] = 2
    """Stride in pixels."""


class ConfigurableCNN(Frozen):
    """A plain CNN made of YAML knobs."""

    name: Literal["cnn"]
    """Network."""
    convolutions: Annotated[tuple[ConvolutionConfig, ...], Field(min_length=1, max_length=32, strict=False)]
    """Convolutions from input to output, each followed by norm, activation and pooling."""
    pooling: PoolingConfig = PoolingConfig()
    """Pooling after each convolution."""
    fully_connected: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(strict=False)] = ()
    """Neurons of the hidden fully-connected layers; empty goes straight to the classes."""
    norm: Norm = "group"
    """Normalisation after each convolution."""
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu"] = "relu"
    """Activation after each convolution and hidden layer."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout before each fully-connected layer."""
    global_pooling: bool = True
    """Average over the whole last feature map before the fully-connected layers."""


class CovidNet(Frozen):
    """COVID-Net (Wang, Lin, Wong 2020): projection-expansion-projection-extension blocks."""

    name: Literal["covid-net"]
    """Network."""
    form: Literal["small", "large"] = "small"
    """`large` adds the long-range 1×1 projections of the paper."""
    norm: Norm = "group"
    """Normalisation; the paper's is `batch`, which privacy and small batches do not allow."""
    head: Literal["global_pooling", "flatten"] = "global_pooling"
    """`flatten` is the paper's; `global_pooling` has far fewer parameters."""


class DenseNet121(Frozen):
    """DenseNet121 (Huang et al. 2017)."""

    name: Literal["densenet121"]
    """Network."""
    norm: Norm = "group"
    """Normalisation, replaced in every layer."""


class ResNet18(Frozen):
    """ResNet18 (He et al. 2016)."""

    name: Literal["resnet18"]
    """Network."""
    norm: Norm = "group"
    """Normalisation, replaced in every layer."""


class LogisticRegression(Frozen):
    """Logistic regression on statistics of the image: the shallow baseline."""

    name: Literal["logistic-regression"]
    """Network."""
    grid: Annotated[int, Field(ge=1, le=64)] = 8
    """Mean and deviation are taken in grid × grid cells, beside a histogram of the whole image."""
    histogram_bins: Annotated[int, Field(ge=2, le=256)] = 16
    """Bins of the histogram of the image's values."""


ModelConfig = Annotated[
    ConfigurableCNN | CovidNet | DenseNet121 | ResNet18 | LogisticRegression, Field(discriminator="name")
]
