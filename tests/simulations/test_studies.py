import tiny_study
import torch

from fedcad.simulations import studies

STEPS = {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_steps": 5}


def test_seed_is_in_the_study_and_decides_the_start():
    first, second = (studies.federated(tiny_study.make_study(), seed) for seed in (1, 2))
    assert (first.study.seed, second.study.seed) == (1, 2)
    assert not torch.equal(first.initial, second.initial)
    assert first.study_hash != second.study_hash


def test_comparisons_start_from_the_same_parameters():
    contract = studies.federated(tiny_study.make_study(), 1)
    others = (studies.alone(contract), studies.pooled(contract, ["a", "b"]), studies.without_one(contract, 2))
    for other in others:
        assert torch.equal(other.initial, contract.initial)
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


def test_pooled_takes_as_many_steps_as_all_sites_together():
    contract = studies.federated(tiny_study.make_study(training=STEPS), 1)
    assert studies.pooled(contract, ["a", "b", "c"]).study.training.local_steps == 15
    by_epochs = studies.federated(tiny_study.make_study(), 1)
    assert studies.pooled(by_epochs, ["a", "b", "c"]).study.training == by_epochs.study.training


def test_one_site_fewer_can_still_reach_the_quorum():
    contract = studies.federated(tiny_study.make_study(participation={"quorum": 3}), 1)
    assert studies.without_one(contract, 2).study.participation.quorum == 2
    assert studies.without_one(contract, 5).study.participation.quorum == 3
    assert studies.without_one(contract, 2).study.algorithm == contract.study.algorithm
