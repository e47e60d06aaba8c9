import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedcad.shared.config.models import ConfigurableCNN, ConvolutionConfig, PoolingConfig
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.cnn import build_cnn, sizes_after


def configuration(*features: int, **knobs) -> ConfigurableCNN:
    convolutions = tuple(ConvolutionConfig(features=count) for count in features)
    return ConfigurableCNN(name="cnn", **({"convolutions": convolutions} | knobs))


def build(config: ConfigurableCNN, *, size: int = 32, channels: int = 1) -> nn.Module:
    return build_cnn(config, classes=3, size=size, channels=channels)


def test_parameters_counted_by_hand():
    # 3·3·1·8, gain and offset 16; 3·3·8·16, 32; flattened 16·8·8 → 10 → 3
    network = build(configuration(8, 16, fully_connected=(10,), global_pooling=False))
    expected = 72 + 16 + 1152 + 32 + (16 * 64 * 10 + 10) + (10 * 3 + 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_layers_stand_in_the_order_of_the_knobs():
    network = build(configuration(8, dropout=0.5, fully_connected=(4,), activation="gelu"))
    assert [type(layer).__name__ for layer in network] == [
        *("Conv2d", "ChannelsInnermost", "GroupNorm", "GELU", "MaxPool2d", "GlobalAverage"),
        *("Dropout", "Linear", "GELU", "Dropout", "Linear"),
    ]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7, 31])
def test_stride_1_keeps_the_size_for_odd_and_even_kernels(kernel):
    convolutions = (ConvolutionConfig(features=4, kernel=kernel),)
    network = build(configuration(convolutions=convolutions, pooling=PoolingConfig(kind="none")))
    layers = [layer for layer in network if isinstance(layer, nn.ZeroPad2d | nn.Conv2d)]
    assert nn.Sequential(*layers)(torch.rand(1, 1, 32, 32)).shape == (1, 4, 32, 32)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu"])
@pytest.mark.parametrize("norm", ["group", "instance", "batch", "none"])
def test_every_activation_and_norm(activation, norm):
    network = build(configuration(4, 8, activation=activation, norm=norm))
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_dropout_acts_in_training_only():
    network = build(configuration(8, dropout=0.5))
    image = torch.rand(1, 1, 32, 32)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_a_map_below_one_pixel_is_refused_with_layer_size_and_remedy():
    with pytest.raises(ConfigError) as refusal:
        build(configuration(*[4] * 6))
    message = str(refusal.value)
    assert "a map of 1 × 1 pixels arrives at the pooling after convolution 6" in message
    assert "window is 2 × 2" in message
    assert "the input is 32 × 32" in message
    assert "at most 5 convolutions" in message


def test_instance_norm_of_one_pixel_is_refused():
    with pytest.raises(ConfigError, match=r"model\.norm: group"):
        build(configuration(*[4] * 6, norm="instance", pooling=PoolingConfig(window=1, stride=2)))


def test_group_norm_of_a_single_value_is_refused():
    with pytest.raises(ConfigError) as refusal:
        build(configuration(4, 4, 4, 4, 4, 1, pooling=PoolingConfig(window=1, stride=2)), size=32)
    message = str(refusal.value)
    assert "convolution 6 has 1 feature on a map of 1 × 1 pixel" in message
    assert "2 or more features" in message


@pytest.mark.parametrize(("features", "size"), [(2, 32), (1, 64)])
def test_two_values_are_enough_for_a_group(features, size):
    network = build(
        configuration(4, 4, 4, 4, 4, features, pooling=PoolingConfig(window=1, stride=2)), size=size
    )
    assert network.train()(torch.rand(1, 1, size, size)).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    convolutions=st.lists(
        st.builds(
            ConvolutionConfig,
            features=st.integers(1, 6),
            kernel=st.integers(1, 6),
            stride=st.integers(1, 4),
        ),
        min_size=1,
        max_size=4,
    ),
    pooling=st.builds(
        PoolingConfig,
        kind=st.sampled_from(["max", "average", "none"]),
        window=st.integers(1, 4),
        stride=st.integers(1, 4),
    ),
    size=st.integers(32, 50),
    flat=st.booleans(),
)
def test_any_knobs_give_the_predicted_sizes_or_a_refusal(convolutions, pooling, size, flat):
    config = configuration(convolutions=tuple(convolutions), pooling=pooling, global_pooling=not flat)
    try:
        sizes = sizes_after(config, size)
    except ConfigError:
        return
    values = [c.features * convolved**2 for c, (convolved, _) in zip(convolutions, sizes, strict=True)]
    if 1 in values:
        with pytest.raises(ConfigError, match="a single value"):
            build(config, size=size)
        return
    network = build(config, size=size)
    x = torch.rand(1, 1, size, size)
    assert network(x).shape == (1, 3)
    last_map = network[: list(dict(network.named_children())).index("to_vector")](x)
    assert last_map.shape[2:] == (sizes[-1][1], sizes[-1][1])
