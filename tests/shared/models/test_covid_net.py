from itertools import pairwise

import pytest
import torch
from torch import nn

from fedcad.shared.config.models import CovidNet
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.covid_net import PEPX, Stage, build_covid_net


def build(*, size: int = 64, channels: int = 1, **knobs) -> nn.Module:
    return build_covid_net(CovidNet(name="covid-net", **knobs), classes=3, size=size, channels=channels)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_pepx_block_has_the_papers_five_convolutions():
    block = PEPX(56, 112, norm="group")
    shapes = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.groups) for m in block if isinstance(m, nn.Conv2d)
    ]
    assert shapes == [(56, 28, 1, 1), (28, 42, 1, 1), (42, 42, 3, 42), (42, 28, 1, 1), (28, 112, 1, 1)]


def test_parameters_of_a_pepx_block_by_hand():
    convolutions = 56 * 28 + 28 * 42 + 9 * 42 + 42 * 28 + 28 * 112
    assert count(PEPX(56, 112, norm="group")) == convolutions + 2 * (42 + 42 + 112)
    assert count(PEPX(56, 112, norm="none")) == convolutions + (42 + 42 + 112)


def test_stages_have_the_papers_blocks_and_channels():
    stages = build().stages
    assert [len(stage.blocks) for stage in stages] == [3, 4, 6, 3]
    assert [stage.blocks[-1].extension.out_channels for stage in stages] == [56, 112, 216, 424]


@pytest.mark.parametrize(("size", "last"), [(224, 7), (128, 4), (65, 2), (33, 1), (32, 1)])
def test_the_last_map_is_a_thirty_second_of_the_image(size, last):
    maps = []
    network = build(size=size, head="flatten").eval()
    network.stages[3].register_forward_hook(lambda _m, _i, output: maps.append(output.shape))
    with torch.no_grad():
        assert network(torch.rand(1, 1, size, size)).shape == (1, 3)
    assert maps == [(1, 424, last, last)]


def test_all_pepx_blocks_together_come_near_the_ported_1_29_million():
    blocks = [module for module in build(norm="none").modules() if isinstance(module, PEPX)]
    assert len(blocks) == 16
    assert sum(count(block) for block in blocks) == pytest.approx(1.29e6, rel=0.01)


def test_large_with_flattened_head_comes_near_the_published_11_75_million():
    # Not equal: the width of the paper's hidden layer is not printed; see the module's docstring.
    with torch.device("meta"):
        parameters = count(build(size=224, channels=3, form="large", head="flatten"))
    assert parameters == 12_067_051
    assert parameters == pytest.approx(11.75e6, rel=0.03)


def test_large_adds_one_projection_to_each_stage_and_nothing_else():
    widths = (56, 56, 112, 216, 424)
    added = sum(a * b + 2 * b for a, b in pairwise(widths))
    assert count(build(form="large")) - count(build(form="small")) == added


def test_each_block_sees_the_sum_of_those_before_it():
    torch.manual_seed(1)
    stage = Stage(8, 12, blocks=3, norm="group", long_range=True)
    x = torch.rand(2, 8, 4, 4)
    far = stage.long_range(x)
    first = stage.blocks[0](x)
    second = stage.blocks[1](far + first)
    third = stage.blocks[2](far + first + second)
    assert torch.allclose(stage(x), far + first + second + third)


def test_small_has_no_long_range_projection():
    stage = Stage(8, 12, blocks=2, norm="group", long_range=False)
    x = torch.rand(2, 8, 4, 4)
    first = stage.blocks[0](x)
    assert torch.allclose(stage(x), first + stage.blocks[1](first))


def test_pooling_before_the_rectifier_changes_nothing():
    x = torch.randn(2, 3, 9, 9)
    pool, rectifier = nn.MaxPool2d(2), nn.ReLU()
    assert torch.equal(pool(rectifier(x)), rectifier(pool(x)))


@pytest.mark.parametrize("norm", ["group", "instance", "batch"])
def test_the_norm_is_the_one_asked_for_everywhere(norm):
    network = build(norm=norm)
    batch_norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    group_norms = sum(isinstance(m, nn.GroupNorm) for m in network.modules())
    assert (batch_norms, group_norms) == ((49, 0) if norm == "batch" else (0, 49))


def test_without_norms_the_logits_stay_of_the_order_of_one():
    torch.manual_seed(1)
    for form in ("small", "large"):
        with torch.no_grad():
            assert build(norm="none", form=form)(torch.rand(4, 1, 64, 64)).abs().max() < 50


def test_instance_norm_of_one_pixel_is_refused():
    with pytest.raises(ConfigError, match="covid-net is instance"):
        build(norm="instance", size=63)
    build(norm="instance", size=64)
