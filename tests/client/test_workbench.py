import tiny_study
import torch

from fedcad.client.workbench import Workbench, freeze, initial_seed
from fedcad.shared.parameters import flatten


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
