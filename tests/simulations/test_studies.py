import pytest
import tiny_study
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench
from fedcad.simulations import studies

STEPS = {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_steps": 5}


def test_seed_is_in_the_study_and_decides_the_start():
    first, second = (studies.federated(tiny_study.make_study(), seed) for seed in (1, 2))
    assert (first.study.seed, second.study.seed) == (1, 2)
    assert not torch.equal(first.initial, second.initial)
    assert first.study_hash != second.study_hash


def test_comparisons_start_from_the_same_parameters():
    contract = studies.federated(tiny_study.make_study(), 1)
    others = (studies.alone(contract), studies.pooled(contract, [10, 20]), studies.without_one(contract, 2))
    for other in others:
        assert torch.equal(other.initial, contract.initial)
        assert other.unexchanged_sha256 == contract.unexchanged_sha256
        assert other.study.seed == contract.study.seed
        assert other.study.rounds == contract.study.rounds


def test_alone_is_fedavg_of_one_whatever_the_algorithm():
    study = tiny_study.make_study(
        algorithm={"name": "fedprox", "proximal_mu": 0.1}, participation={"quorum": 3, "deadline_s": 9.0}
    )
    alone = studies.alone(studies.federated(study, 1)).study
    assert alone.algorithm.name == "fedavg"
    assert (alone.participation.quorum, alone.participation.deadline_s) == (1, 9.0)
    assert alone.training == study.training


def training(**changes):
    return tiny_study.make_study(training=STEPS | changes).training


def test_draws_are_those_of_the_real_trainer():
    for cases, steps in ((3, 5), (4, 5), (10, 2), (10, 3), (10, 7), (1, 4)):
        contract = studies.federated(tiny_study.make_study(training=STEPS | {"local_steps": steps}), 1)
        trainer = LocalTrainer(
            Workbench(contract), tiny_study.spread_cases(train=cases), site="a", round_number=1
        )
        real = sum(len(batch.targets["label"]) for batch in trainer._batches(torch.Generator()))
        assert studies.draws(contract.study.training, cases) == real


def test_pooled_draws_as_many_cases_as_all_sites_together():
    """Batches of 4, 5 steps: 3 cases give 5 x 3 = 15 draws; 10 cases 4+4+2 and 4+4, in all 18."""
    contract = studies.federated(tiny_study.make_study(training=STEPS), 1)
    pooled = studies.pooled(contract, [3, 10]).study.training
    # 13 cases are 4+4+4+1: two passes are 26 draws in 8 steps, then 30 and 34, which is nearer to 33.
    assert pooled.local_steps == 10
    assert studies.draws(pooled, 13) == 34
    passes = studies.case_passes(contract, [3, 10])
    assert passes == {"federated": pytest.approx(2 * 33 / 13), "pooled": pytest.approx(2 * 34 / 13)}


def test_pooled_by_epochs_is_exact():
    contract = studies.federated(tiny_study.make_study(), 1)
    assert studies.pooled(contract, [3, 10]).study.training == contract.study.training
    assert studies.case_passes(contract, [3, 10]) == {"federated": 2.0, "pooled": 2.0}


@given(
    cases=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    batch=st.integers(1, 64),
    steps=st.integers(1, 50),
)
def test_no_other_number_of_steps_draws_closer(cases, batch, steps):
    federated = training(batch_size=batch, local_steps=steps)
    wanted, total = sum(studies.draws(federated, each) for each in cases), sum(cases)
    found = studies._steps_for(wanted, total, batch)

    def distance(number):
        return abs(studies.draws(training(batch_size=batch, local_steps=number), total) - wanted)

    assert found >= 1
    assert all(distance(found) <= distance(other) for other in (max(found - 1, 1), found + 1))
    if len(cases) == 1:
        assert distance(found) == 0


def test_one_site_fewer_can_still_reach_the_quorum():
    contract = studies.federated(tiny_study.make_study(participation={"quorum": 3}), 1)
    assert studies.without_one(contract, 2).study.participation.quorum == 2
    assert studies.without_one(contract, 5).study.participation.quorum == 3
    assert studies.without_one(contract, 2).study.algorithm == contract.study.algorithm


BATCH_NORM = {"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch"}


def test_comparisons_of_an_algorithm_with_personal_entries_have_whole_models():
    study = tiny_study.make_study(algorithm={"name": "fedbn"}, model=BATCH_NORM)
    contract = studies.federated(study, 1)
    whole = studies.federated(tiny_study.make_study(model=BATCH_NORM), 1)
    assert studies.has_personal(contract)
    assert contract.layout.size < whole.layout.size
    for other in (studies.alone(contract), studies.pooled(contract, [10, 20])):
        assert not studies.has_personal(other)
        assert other.study.algorithm.name == "fedavg"
        assert torch.equal(other.initial, whole.initial)
    assert studies.without_one(contract, 2).layout == contract.layout
