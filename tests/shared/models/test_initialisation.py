import subprocess
import sys

import pytest
import torch
from torch import nn

from fedcad.shared.models.initialisation import initialise_convolutions, initialise_projections


def test_rectified_convolutions_keep_the_mean_square():
    torch.manual_seed(1)
    layers = [
        nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"), nn.ReLU()) for _ in range(8)
    ]
    network = nn.Sequential(*layers)
    initialise_convolutions(network)
    x = torch.randn(4, 64, 16, 16)
    with torch.no_grad():
        ratio = network(x).square().mean() / x.square().mean()
    # Any fan other than the fan-in's, or the gain of a linear layer (0.5 to the 8th), falls far outside.
    assert 0.5 < ratio < 2.0


@pytest.mark.parametrize("groups", [1, 64])
def test_deviation_follows_the_fan_in_of_the_group(groups):
    torch.manual_seed(1)
    layer = nn.Conv2d(64, 64, 3, groups=groups)
    initialise_convolutions(layer)
    fan_in = 64 // groups * 9
    assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
    assert not layer.bias.any()


def test_projections_scale_variance_by_the_gain_squared():
    torch.manual_seed(1)
    layer = nn.Conv2d(256, 256, 1)
    initialise_projections([layer], gain=0.5)
    assert layer.weight.std().item() == pytest.approx(0.5 / 256**0.5, rel=0.02)


def test_linear_layers_are_left_alone():
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    initialise_convolutions(nn.Sequential(layer))
    assert torch.equal(layer.weight, before)


def test_an_outline_without_numbers_needs_no_compiler() -> None:
    """Drawing on the meta device would import torch._dynamo into every process that builds a network."""
    program = (
        "import sys\n"
        "from fedcad.shared.config.models import CovidNet, ResNet18\n"
        "from fedcad.shared.models.registry import build_model\n"
        "for config in (CovidNet(name='covid-net'), ResNet18(name='resnet18')):\n"
        "    build_model(config, classes=2, size=64)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
