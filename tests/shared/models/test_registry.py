import subprocess
import sys

import pytest
import torch
from torch import nn

from fedcad.shared.config.models import ConfigurableCNN, ConvolutionConfig, CovidNet, ResNet18
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.registry import NETWORKS, build_model


def test_no_network_makes_others_pay_for_monai():
    check = (
        "import sys, fedcad.shared.models.registry as r\n"
        "for entry in r.NETWORKS.values(): r.build_model(entry.example, classes=2, size=32)\n"
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_network_is_in_training_mode_and_on_the_processor():
    model = build_model(ResNet18(name="resnet18"), classes=2, size=32)
    assert model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_the_check_of_the_size_draws_no_random_number():
    config = NETWORKS["cnn"].example
    torch.manual_seed(1)
    registered = build_model(config, classes=3, size=64)
    torch.manual_seed(1)
    direct = NETWORKS["cnn"].build(config, classes=3, size=64, channels=1)
    for one, other in zip(registered.parameters(), direct.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_size_below_32_is_refused():
    with pytest.raises(ConfigError, match=r"preprocessing.size is 31.*at least 32"):
        build_model(ResNet18(name="resnet18"), classes=2, size=31)


@pytest.mark.parametrize(("classes", "channels"), [(1, 1), (2, 0), (0, 1), (-3, 1)])
def test_misuse_raises_value_error(classes, channels):
    with pytest.raises(ValueError, match="need at least 2 and 1"):
        build_model(ResNet18(name="resnet18"), classes=classes, size=32, channels=channels)


def test_a_giant_is_refused_before_memory_is_taken():
    giant = ConfigurableCNN(
        name="cnn",
        convolutions=(ConvolutionConfig(features=4096),),
        fully_connected=(65536,),
        global_pooling=False,
    )
    with pytest.raises(ConfigError, match=r"cnn would have [\d,]+ parameters.*global pooling"):
        build_model(giant, classes=2, size=2048)
    with pytest.raises(ConfigError, match="covid-net would have"):
        build_model(CovidNet(name="covid-net", head="flatten"), classes=2, size=2048)


def test_entries_cannot_be_changed_at_run_time():
    with pytest.raises(TypeError):
        NETWORKS["mine"] = NETWORKS["cnn"]  # type: ignore[index]


def test_every_network_is_a_module_with_a_description():
    for entry in NETWORKS.values():
        assert entry.description
        assert isinstance(build_model(entry.example, classes=2, size=32), nn.Module)
