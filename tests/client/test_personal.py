import pytest
import torch
from torch import nn

from fedcad.client.personal import personal_parameters, personal_state, restore, split_state, unexchanged
from fedcad.shared.errors import CheckpointError
from fedcad.shared.parameters import layout_of


@pytest.fixture
def networks():
    torch.manual_seed(1)
    body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    body[0].weight.requires_grad_(False)
    return {"body": body}


PERSONAL = frozenset({"body/1.weight", "body/1.bias", "body/1.running_mean"})


def test_what_is_not_exchanged(networks):
    names = set(unexchanged(networks, layout_of(networks, personal=PERSONAL)))
    assert names == PERSONAL | {"body/0.weight", "body/1.num_batches_tracked"}


def test_state_is_a_copy_and_comes_back(networks):
    layout = layout_of(networks, personal=PERSONAL)
    state = personal_state(networks, layout)
    with torch.no_grad():
        networks["body"][1].weight.fill_(7.0)
        networks["body"][1].running_mean.fill_(7.0)
    algorithm, personal = split_state({"control": torch.ones(1)} | state, layout)
    assert set(algorithm) == {"control"}
    assert set(personal) == PERSONAL
    restore(networks, personal)
    assert torch.equal(networks["body"][1].weight, torch.ones(3))
    assert torch.equal(networks["body"][1].running_mean, torch.zeros(3))


def test_only_trained_parameters_of_the_network_are_given(networks):
    layout = layout_of(networks, personal=PERSONAL | {"body/0.weight"})
    found = personal_parameters(networks, layout, "body")
    assert [tuple(parameter.shape) for parameter in found] == [(3,), (3,)]


def test_state_of_another_model_is_refused(networks):
    layout = layout_of(networks, personal=PERSONAL)
    state = personal_state(networks, layout)
    with pytest.raises(CheckpointError, match="personal entries"):
        split_state({}, layout)
    with pytest.raises(CheckpointError, match="personal entries"):
        split_state(state | {"personal/body/1.bias": torch.zeros(4)}, layout)
    with pytest.raises(CheckpointError, match="personal entries"):
        split_state(state, layout_of(networks))
