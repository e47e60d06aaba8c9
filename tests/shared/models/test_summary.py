import torch
from torch import nn

from fedcad.shared.config.models import ResNet18
from fedcad.shared.models.registry import NETWORKS, build_model
from fedcad.shared.models.summary import LayerSummary, summarise


def test_rows_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    summary = summarise(network, 8)
    assert summary.layers == (
        LayerSummary("0", "Conv2d", (4, 8, 8), 40, 4 * 64 * 9),
        LayerSummary("1", "ReLU", (4, 8, 8), 0, 0),
        LayerSummary("2", "Flatten", (256,), 0, 0),
        LayerSummary("3", "Linear", (2,), 514, 512),
    )
    assert (summary.parameters, summary.trainable_parameters, summary.macs) == (554, 554, 2304 + 512)


def test_a_depthwise_convolution_counts_one_input_for_each_output():
    summary = summarise(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), 5, 6)
    assert (summary.parameters, summary.macs) == (54, 6 * 25 * 9)


def test_a_layer_called_twice_has_two_rows_and_its_parameters_once():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    summary = summarise(nn.Sequential(layer, layer), 4)
    assert [row.parameters for row in summary.layers] == [1, 0]
    assert [row.macs for row in summary.layers] == [16, 16]
    assert summary.parameters == 1


def test_frozen_parameters_are_counted_apart():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))
    network[0].requires_grad_(False)
    summary = summarise(network, 4)
    assert (summary.parameters, summary.trainable_parameters) == (13, 9)


def test_resnet18_has_the_published_multiply_accumulates():
    # 1.814 GMAC at 3 × 224 × 224, as torchvision gives for its ResNet18 weights (GFLOPS 1.81).
    with torch.device("meta"):
        network = NETWORKS["resnet18"].build(ResNet18(name="resnet18"), classes=1000, size=224, channels=3)
    assert round(summarise(network, 224, 3).macs / 1e9, 2) == 1.81


def test_the_rows_hold_all_parameters_of_every_network():
    for entry in NETWORKS.values():
        network = build_model(entry.example, classes=3, size=64)
        summary = summarise(network, 64)
        assert sum(row.parameters for row in summary.layers) == summary.parameters
        assert summary.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert summary.layers[-1].output_shape == (3,)


def test_the_network_and_the_generator_stay_as_they_are():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    summarise(network, 8)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
