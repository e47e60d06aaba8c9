import pytest
import torch
from torch import nn

from fedcad.shared.config.models import DenseNet121
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.densenet import DenseLayer, build_densenet121

PUBLISHED_PARAMETERS = 7_978_856
"""torchvision.models.densenet121, weights of ImageNet."""


def build(*, norm: str = "group", classes: int = 3, size: int = 64, channels: int = 1) -> nn.Module:
    return build_densenet121(
        DenseNet121(name="densenet121", norm=norm), classes=classes, size=size, channels=channels
    )


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_the_published_number_of_parameters(norm):
    with torch.device("meta"):
        network = build(norm=norm, classes=1000, size=224, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED_PARAMETERS


def test_all_norms_are_replaced_and_121_layers_have_weights():
    network = build()
    # 2 in each of 58 layers, 3 transitions, the stem and the end
    assert sum(isinstance(m, nn.GroupNorm) for m in network.modules()) == 2 * 58 + 3 + 2
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == 121


def test_a_dense_layer_keeps_what_arrives_and_adds_32_maps():
    layer, x = DenseLayer(64, norm="group"), torch.rand(2, 64, 4, 4)
    y = layer(x)
    assert y.shape == (2, 96, 4, 4)
    assert torch.equal(y[:, :64], x)


def test_same_function_as_monais_with_the_same_parameters():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(1)
    ours = build(norm="batch", channels=3).eval()
    theirs = nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=3).eval()
    names, values = list(theirs.state_dict()), list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(names, values, strict=True)))
    image = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-4)


def test_instance_norm_of_one_pixel_is_refused():
    with pytest.raises(ConfigError, match="densenet121 is instance"):
        build(norm="instance", size=63)
    build(norm="instance", size=64)
