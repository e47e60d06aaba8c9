import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedcad.shared.errors import ConfigError
from fedcad.shared.models.norms import group_count, make_norm, replace_norms, require_pixels

KINDS = ("group", "instance", "batch", "none")


@given(st.integers(1, 4096))
def test_groups_divide_the_channels_and_hold_four_where_they_can(channels):
    groups = group_count(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 4
    doubled = 2 * groups
    assert doubled > math.gcd(32, channels) or channels // doubled < 4


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (4, 1), (8, 2), (28, 4), (56, 8), (64, 16), (424, 8), (512, 32), (7, 1)]
)
def test_groups_by_hand(channels, groups):
    assert group_count(channels) == groups


@given(channels=st.integers(1, 130), kind=st.sampled_from(KINDS), pixels=st.integers(1, 4))
def test_every_norm_takes_every_width_and_keeps_the_shape(channels, kind, pixels):
    x = torch.rand(2, channels, pixels, pixels)
    assert make_norm(kind, channels)(x).shape == x.shape


def test_group_norm_has_mean_0_and_variance_1_within_a_group():
    x = 5.0 + 3.0 * torch.rand(2, 8, 6, 6)
    grouped = make_norm("group", 8)(x).reshape(2, 2, -1)
    assert torch.allclose(grouped.mean(dim=2), torch.zeros(2, 2), atol=1e-5)
    assert torch.allclose(grouped.var(dim=2, unbiased=False), torch.ones(2, 2), atol=1e-3)


def test_instance_norm_has_the_numbers_of_torchs_own():
    x = torch.rand(2, 6, 5, 5)
    assert torch.allclose(make_norm("instance", 6)(x), nn.InstanceNorm2d(6)(x), atol=1e-6)


def network_with_every_norm() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(8), nn.Sequential(nn.GroupNorm(2, 8), nn.ModuleDict({"deep": nn.InstanceNorm2d(8)}))
    )


@pytest.mark.parametrize("kind", ["group", "instance", "none"])
def test_every_norm_is_replaced_at_every_depth(kind):
    network = network_with_every_norm()
    assert replace_norms(network, kind) == 3
    kinds = {type(m) for m in network.modules()} - {nn.Sequential, nn.ModuleDict}
    assert kinds == {type(make_norm(kind, 8))}


def test_batch_norms_stay_where_batch_is_asked_for():
    network = nn.Sequential(nn.BatchNorm3d(4), nn.GroupNorm(1, 4))
    kept = network[0]
    assert replace_norms(network, "batch") == 1
    assert network[0] is kept
    assert isinstance(network[1], nn.BatchNorm2d)


def test_a_shared_layer_stays_shared():
    shared = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
    assert replace_norms(network, "group") == 1
    assert network[0][0] is network[1][0]
    assert isinstance(network[0][0], nn.GroupNorm)


def test_a_norm_alone_cannot_be_replaced_in_place():
    with pytest.raises(ValueError, match="give the network that holds it"):
        replace_norms(nn.BatchNorm2d(3), "group")


def test_nothing_to_replace_changes_nothing():
    assert replace_norms(nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4)), "group") == 0


def test_monais_resnet_loses_all_its_batch_norms():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.resnet18(spatial_dims=2, n_input_channels=1, num_classes=3)
    assert replace_norms(network, "group") == 20
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def test_instance_norm_of_one_pixel_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"resnet18 is instance.*1 × 1.*model.norm: group"):
        require_pixels("instance", 1, network="resnet18")
    for kind in KINDS:
        require_pixels(kind, 2, network="x")
    require_pixels("group", 1, network="x")
