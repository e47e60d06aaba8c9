"""Networks and the flat vector: round trips, and training on one flat tensor gives the same bits."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.layout import Layout, Norm, Role
from fedcad.shared.parameters import (
    FlatParameters,
    check_length,
    flatten,
    layout_of,
    load,
    named_tensors,
    tensor_of,
)


class Network(nn.Module):
    """Trained, frozen and tied-to-nothing parameters, floating and integer buffers, a scalar, none saved."""

    def __init__(self, width: int = 3, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.head = nn.Linear(width, 2)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("temporary", torch.zeros(9), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.convolution(images)).relu().mean((2, 3))
        logits: Tensor = self.head(features) * self.scale
        return logits


def networks_of(seed: int = 1, width: int = 3) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {"first": Network(width), "second": Network(width + 1)}
    for network in networks.values():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_()
    return networks


def bits(networks: dict[str, nn.Module]) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in named_tensors(networks)}


def test_roles_follow_from_the_networks() -> None:
    layout = layout_of(networks_of(), personal=frozenset({"second/head.bias"}))
    roles = {entry.name: (entry.role, entry.dtype, entry.shape) for entry in layout.entries}
    assert roles["first/convolution.weight"] == (Role.TRAINED, "float32", (3, 1, 3, 3))
    assert roles["first/scale"] == (Role.TRAINED, "float32", ())
    assert roles["first/frozen"] == (Role.FROZEN, "float32", (2,))
    assert roles["first/norm.running_mean"] == (Role.BUFFER, "float32", (3,))
    assert roles["first/norm.num_batches_tracked"] == (Role.BUFFER, "int64", ())
    assert roles["first/mask"] == (Role.BUFFER, "bool", (2,))
    assert roles["second/head.bias"] == (Role.LOCAL, "float32", (2,))
    assert "first/temporary" not in roles


def test_a_personal_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="second/nothing"):
        layout_of(networks_of(), personal=frozenset({"second/nothing"}))


def test_the_vector_holds_trained_entries_then_floating_buffers() -> None:
    networks = networks_of()
    layout = layout_of(networks)
    vector = flatten(networks, layout)
    state = {f"{name}/{key}": t for name, each in networks.items() for key, t in each.state_dict().items()}
    assert vector.dtype == torch.float32
    assert len(vector) == layout.size
    for entry, place in layout.slices():
        assert torch.equal(vector[place], state[entry.name].reshape(-1).float())
    trained = [p for each in networks.values() for p in each.parameters() if p.requires_grad]
    assert sum(map(torch.numel, trained)) == layout.trained_size


@given(st.integers(0, 100), st.integers(1, 4), st.sets(st.sampled_from(["first/head.bias", "second/scale"])))
@settings(max_examples=15, deadline=None)
def test_flatten_load_flatten_is_the_identity_and_moves_nothing_else(
    seed: int, width: int, personal: set[str]
) -> None:
    source, target = networks_of(seed, width), networks_of(seed + 1, width)
    layout = layout_of(source, personal=frozenset(personal))
    vector = flatten(source, layout)
    before = bits(target)
    load(target, layout, vector)
    assert torch.equal(flatten(target, layout), vector)
    travels = {entry.name for entry, _ in layout.slices()}
    after, sent = bits(target), bits(source)
    for name in before:
        assert after[name] == (sent[name] if name in travels else before[name])
    assert personal.isdisjoint(travels)


def test_loading_copies() -> None:
    networks = networks_of()
    layout = layout_of(networks)
    vector = flatten(networks, layout)
    kept = vector.clone()
    load(networks, layout, vector)
    vector.zero_()
    assert torch.equal(flatten(networks, layout), kept)


def test_the_format_in_memory_does_not_show() -> None:
    one, other = networks_of(), networks_of()
    layout = layout_of(one)
    for network in other.values():
        network.to(memory_format=torch.channels_last)
    assert torch.equal(flatten(other, layout), flatten(one, layout))
    load(other, layout, flatten(one, layout) * 2)
    load(one, layout, flatten(one, layout) * 2)
    assert torch.equal(flatten(other, layout), flatten(one, layout))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 1)])
def test_a_vector_of_another_length_is_refused_before_anything_is_loaded(shape: tuple[int, ...]) -> None:
    networks = networks_of()
    layout = layout_of(networks)
    before = bits(networks)
    with pytest.raises(InvalidUpdate, match="the study's model needs"):
        load(networks, layout, torch.zeros(shape))
    with pytest.raises(InvalidUpdate):
        check_length(layout, torch.zeros(1, layout.size))
    check_length(layout, torch.zeros(layout.size))
    assert bits(networks) == before


def test_a_message_vector_shares_memory() -> None:
    array = np.arange(3, dtype=np.float32)
    tensor = tensor_of(array)
    array[0] = 7
    assert tensor.tolist() == [7.0, 1.0, 2.0]
    array.flags.writeable = False
    assert tensor_of(array).tolist() == [7.0, 1.0, 2.0]
    assert tensor_of(np.arange(6, dtype=np.float32)[::2]).tolist() == [0.0, 2.0, 4.0]


# Training on one flat tensor.

IMAGES = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 1, 0])


def loss_of(networks: dict[str, nn.Module]) -> Tensor:
    losses = [nn.functional.cross_entropy(network(IMAGES), LABELS) for network in networks.values()]
    return torch.stack(losses).sum()


def separate(networks: dict[str, nn.Module]) -> list[nn.Parameter]:
    return [p for network in networks.values() for p in network.parameters() if p.requires_grad]


def test_becoming_flat_changes_no_value_and_no_output() -> None:
    networks = networks_of()
    layout = layout_of(networks)
    before, loss = bits(networks), loss_of(copy.deepcopy(networks))
    flat = FlatParameters(networks, layout)
    assert bits(networks) == before
    assert torch.equal(flat.values, flatten(networks, layout)[: layout.trained_size])
    assert torch.equal(loss_of(networks), loss)


def test_parameters_are_views_both_ways() -> None:
    networks = networks_of()
    layout = layout_of(networks)
    flat = FlatParameters(networks, layout)
    flat.values.fill_(2.0)
    assert all((p == 2).all() for p in separate(networks))
    load(networks, layout, torch.full((layout.size,), 3.0))
    assert (flat.values == 3).all()


def test_gradients_accumulate_into_the_flat_vector() -> None:
    networks, reference = networks_of(), networks_of()
    layout = layout_of(networks)
    flat = FlatParameters(networks, layout)
    for times in (1, 2):
        loss_of(networks).backward()
        loss_of(reference).backward()
        expected = torch.cat([p.grad.reshape(-1) for p in separate(reference) if p.grad is not None])
        assert torch.equal(flat.gradients, expected), f"after {times} passes"
    flat.gradients.zero_()
    loss_of(networks).backward()
    assert flat.gradients.abs().sum() > 0


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_on_the_flat_tensor_are_those_on_separate_parameters_bit_by_bit(name: str) -> None:
    networks, reference = networks_of(), networks_of()
    layout = layout_of(networks)
    flat = FlatParameters(networks, layout)
    parameter = nn.Parameter(flat.values)
    parameter.grad = flat.gradients
    one, other = OPTIMIZERS[name]([parameter]), OPTIMIZERS[name](separate(reference))
    for _ in range(4):
        flat.gradients.zero_()
        other.zero_grad()
        loss_of(networks).backward()
        loss_of(reference).backward()
        one.step()
        other.step()
    assert torch.equal(flatten(networks, layout), flatten(reference, layout))
    assert bits(networks) == bits(reference)
    assert not torch.equal(flatten(networks, layout), flatten(networks_of(), layout))


def test_each_network_has_its_contiguous_place() -> None:
    networks = networks_of()
    flat = FlatParameters(networks, layout_of(networks))
    first, second = flat.range_of("first"), flat.range_of("second")
    assert (first.start, first.stop, second.stop) == (0, second.start, len(flat.values))
    flat.values[first] = 5.0
    assert all((p == 5).all() for p in networks["first"].parameters() if p.requires_grad)
    assert not any((p == 5).all() for p in networks["second"].parameters() if p.requires_grad)


def test_a_network_with_nothing_to_train_has_an_empty_place() -> None:
    networks: dict[str, nn.Module] = {
        "plain": nn.Linear(1, 1),
        "frozen": nn.Linear(1, 1).requires_grad_(False),
    }
    flat = FlatParameters(networks, layout_of(networks))
    assert flat.range_of("frozen") == slice(0, 0)
    assert len(flat.values) == 2


def test_personal_entries_keep_their_own_gradient_and_memory() -> None:
    networks = networks_of()
    layout = layout_of(networks, personal=frozenset({"first/head.bias"}))
    flat = FlatParameters(networks, layout)
    flat.values.zero_()
    assert networks["first"].state_dict()["head.bias"].abs().sum() > 0


def test_nothing_at_all() -> None:
    flat = FlatParameters({}, Layout(()))
    assert len(flat.values) == 0
    assert len(flatten({}, Layout(()))) == 0


LAYERS = {
    Norm.BATCH: [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4)],
    Norm.INSTANCE: [nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.GroupNorm(4, 4)],
    Norm.GROUP: [nn.GroupNorm(2, 4), nn.GroupNorm(1, 4)],
    Norm.LAYER: [nn.LayerNorm(4), nn.RMSNorm(4)],
    Norm.NONE: [nn.Linear(4, 4), nn.Conv2d(4, 4, 1), nn.Embedding(4, 4), nn.MultiheadAttention(4, 2)],
}


@pytest.mark.parametrize("norm", LAYERS)
def test_every_entry_knows_its_normalisation_layer(norm: Norm) -> None:
    for layer in LAYERS[norm]:
        network = nn.Sequential(nn.Linear(1, 1), nn.ModuleDict({"norm": layer}))
        entries = {entry.name: entry.norm for entry in layout_of({"net": network, "bare": layer}).entries}
        assert entries["net/0.weight"] is Norm.NONE
        inside = [name for name in entries if name.startswith(("net/1.", "bare/"))]
        assert len(inside) == 2 * len(layer.state_dict()) > 0
        assert {entries[name] for name in inside} == {norm}


def test_a_shared_normalisation_layer_is_one_under_each_of_its_names() -> None:
    norm = nn.BatchNorm2d(2)
    layout = layout_of({"net": nn.ModuleList([norm, norm])})
    assert {entry.norm for entry in layout.entries} == {Norm.BATCH}
    assert len(layout.entries) == 10
