from dataclasses import replace

import pytest
import tiny_study
import torch

from fedcad.client import workbench
from fedcad.client.workbench import Workbench, freeze, initial_seed
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError
from fedcad.shared.layout import Layout, Role
from fedcad.shared.parameters import flatten
from fedcad.shared.tasks.classification import Classification


def test_freezing_twice_gives_one_contract():
    torch.manual_seed(5)
    first = freeze(tiny_study.make_study())
    torch.rand(9)
    second = freeze(tiny_study.make_study())
    assert first.study_hash == second.study_hash
    assert torch.equal(first.initial, second.initial)


def test_seed_decides_the_initial_parameters():
    first, second = (freeze(tiny_study.make_study(seed=seed)) for seed in (1, 2))
    assert not torch.equal(first.initial, second.initial)
    assert initial_seed(first.study) != initial_seed(second.study)


def test_networks_are_built_as_the_contract_says():
    contract = freeze(tiny_study.make_study())
    bench = Workbench(contract)
    assert torch.equal(flatten(bench.networks, contract.layout), contract.initial)
    assert torch.equal(bench.flat.values, contract.initial[: contract.layout.trained_size])


def test_becoming_a_site_forgets_what_another_left():
    study = tiny_study.make_study(model={"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch"})
    bench = Workbench(freeze(study))
    tracked = [
        t for n, t in bench.networks["classifier"].named_buffers() if n.endswith("num_batches_tracked")
    ]
    assert tracked
    tracked[0].fill_(12)
    bench.become({})
    assert tracked[0].item() == 0
    assert bench.first_personal() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: (replace(e[0], name="classifier/other"), *e[1:]), "classifier/other"),
        (lambda e: (replace(e[0], shape=(9, 1)), *e[1:]), r"\(9, 1\)"),
        (lambda e: (*e[:-1], replace(e[-1], role=Role.FROZEN)), "frozen"),
        (lambda e: (*e[:-1], replace(e[-1], dtype="float16")), "float16"),
        (lambda e: e[:-1], "no further entry"),
        (lambda e: (*e, replace(e[-1], name="classifier/more", role=Role.LOCAL)), "local classifier/more"),
    ],
)
def test_networks_that_are_not_the_contracts_are_refused(change, said):
    contract = freeze(tiny_study.make_study())
    layout = Layout(change(contract.layout.entries))
    with pytest.raises(CheckpointError, match=said):
        Workbench(replace(contract, layout=layout, initial=torch.zeros(layout.size)))


@pytest.fixture
def partly_frozen(monkeypatch):
    """Networks of which the first array is frozen, as a pretrained encoder is."""
    build = Classification.networks

    def networks(task):
        built = build(task)
        next(built["classifier"].parameters()).requires_grad_(False)
        return built

    monkeypatch.setattr(Classification, "networks", networks)


def test_frozen_values_are_in_the_contract_and_compared(partly_frozen, monkeypatch, tmp_path):
    contract = freeze(tiny_study.make_study())
    assert contract.layout.entries[0].role is Role.FROZEN
    contract.save(tmp_path)
    contract = Contract.load(tmp_path)
    bench = Workbench(contract)
    assert bench.flat.values.shape == (contract.layout.trained_size,)
    monkeypatch.setattr(workbench, "initial_seed", lambda study: 5)
    with pytest.raises(CheckpointError, match="torch build"):
        Workbench(contract)
    assert freeze(contract.study).unexchanged_sha256 != contract.unexchanged_sha256


def test_exchanged_values_come_with_the_contract_and_need_not_be_built_alike(monkeypatch):
    contract = freeze(tiny_study.make_study())
    monkeypatch.setattr(workbench, "initial_seed", lambda study: 5)
    Workbench(contract)
