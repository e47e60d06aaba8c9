import pytest
import torch
from torch import nn

from fedcad.shared.config.models import ResNet18
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.resnet import build_resnet18

PUBLISHED_PARAMETERS = 11_689_512
"""torchvision.models.resnet18, weights of ImageNet."""


def build(*, norm: str = "group", classes: int = 3, size: int = 64, channels: int = 1) -> nn.Module:
    return build_resnet18(ResNet18(name="resnet18", norm=norm), classes=classes, size=size, channels=channels)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_the_published_number_of_parameters(norm):
    with torch.device("meta"):
        network = build(norm=norm, classes=1000, size=224, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED_PARAMETERS


def test_all_twenty_norms_are_replaced():
    network = build()
    assert sum(isinstance(m, nn.GroupNorm) for m in network.modules()) == 20
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in build(norm="batch").modules()) == 20


def test_same_function_as_monais_with_the_same_parameters():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(1)
    ours = build(norm="batch", channels=3).eval()
    theirs = nets.resnet18(
        spatial_dims=2,
        n_input_channels=3,
        num_classes=3,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    ).eval()
    names, values = list(theirs.state_dict()), list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(names, values, strict=True)))
    image = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-4)


def test_without_norms_the_logits_stay_of_the_order_of_one():
    torch.manual_seed(1)
    with torch.no_grad():
        assert build(norm="none")(torch.rand(4, 1, 64, 64)).abs().max() < 50


def test_instance_norm_of_one_pixel_is_refused():
    with pytest.raises(ConfigError, match="resnet18 is instance"):
        build(norm="instance", size=32)
    build(norm="instance", size=33)
