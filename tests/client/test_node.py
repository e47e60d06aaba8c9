"""A node as the coordinator sees it: refusals, updates, state that follows what counted."""

import json

import numpy as np
import pytest
import tiny_study
import torch
from toy_algorithms import FEDAVG, Controlled, Greedy, LocalNorms, bench_with, plan_for

from fedcad.client import evaluation
from fedcad.client.node import Node
from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import Refusal, Update
from fedcad.shared.parameters import load

BATCH_NORM = {"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch"}


@pytest.fixture
def data():
    return tiny_study.spread_cases()


@pytest.fixture
def node(bench, data, tmp_path):
    return Node("a", data, bench, state=tmp_path)


def model_of(bench):
    return {"model": bench.contract.initial}


def train(node, vectors, *, round_number, last, work=("train",)):
    answer = node.answer(*plan_for(node, vectors, work=work, round_number=round_number, last=last))
    assert isinstance(answer, Update)
    return answer


def test_update_is_what_the_trainer_gives(node, bench, data):
    answer = train(node, model_of(bench), round_number=3, last=0)
    contract = freeze(bench.contract.study)
    final = LocalTrainer(Workbench(contract), data, site="a", round_number=3).train(contract.initial)
    assert np.array_equal(answer.vectors["model"], (final - contract.initial).numpy())
    assert answer.vectors["model"].dtype == np.float32
    assert (answer.header.site, answer.header.round, answer.header.weights) == ("a", 3, {"model": 10})
    assert answer.header.releases == ("model",)
    assert answer.statistics == {}


def test_one_plan_validates_what_came_and_then_trains(node, bench):
    both = train(node, model_of(bench), round_number=1, last=0, work=("validate", "train"))
    assert both.header.releases == ("model", "validation")
    plan, vectors, digest = plan_for(bench, model_of(bench), work=("validate",), round_number=0)
    alone = node.answer(plan, vectors, digest)
    assert np.array_equal(alone.statistics["validation"], both.statistics["validation"])
    assert alone.header.weights == {}
    assert alone.vectors == {}
    assert both.header.plan != alone.header.plan


def test_bootstrap_rows_only_for_the_test_part(node, bench):
    replicates = bench.contract.study.evaluation.bootstrap_replicates
    plan = plan_for(bench, model_of(bench), work=("validate", "test"), round_number=0)
    statistics = node.answer(*plan).statistics
    assert statistics["test"].shape == (1 + replicates, bench.task.statistics.size)
    assert statistics["validation"].shape == (1, bench.task.statistics.size)


def test_several_vectors_are_tested_as_an_ensemble(node, bench):
    members = {"alone-a": bench.contract.initial + 0.2, "alone-b": bench.contract.initial - 0.2}
    answer = node.answer(*plan_for(bench, members, work=("test",), round_number=0))
    for member in members.values():
        single = node.answer(*plan_for(bench, {"model": member}, work=("test",), round_number=0))
        assert single.statistics["test"].shape == answer.statistics["test"].shape
        assert not np.array_equal(single.statistics["test"], answer.statistics["test"])


def test_ensemble_is_added_in_the_order_of_names_whatever_the_order_of_the_record(node, bench, monkeypatch):
    seen, members = [], {f"alone-{name}": bench.contract.initial + ord(name) for name in "abc"}
    for names in (sorted(members), sorted(members, reverse=True)):
        order = []
        monkeypatch.setattr(
            evaluation, "load", lambda *asked, order=order: (order.append(asked[2]), load(*asked))
        )
        node.answer(*plan_for(bench, {name: members[name] for name in names}, work=("test",), round_number=0))
        seen.append(order)
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
    assert torch.equal(seen[0][0], members["alone-a"])


def refusal(node, plan, vectors, digest):
    answer = node.answer(plan, vectors, digest)
    assert isinstance(answer, Refusal)
    assert (answer.plan, answer.site) == (plan.identity, "a")
    return answer.code


def test_refusals(node, bench, data):
    model = model_of(bench)
    data.inputs = lambda *_: pytest.fail("a refused plan must not touch data")
    assert refusal(node, *plan_for(bench, model, study_hash="f" * 64)) == "wrong-study"
    assert refusal(node, *plan_for(bench, model, site="b")) == "wrong-site"
    assert refusal(node, *plan_for(bench, model, broadcast_hash="f" * 64)) == "wrong-broadcast"
    assert refusal(node, *plan_for(bench, {"model": bench.contract.initial[:-1]})) == "wrong-broadcast"
    assert refusal(node, *plan_for(bench, {"model": bench.contract.initial[None]})) == "wrong-broadcast"
    assert refusal(node, *plan_for(bench, {})) == "wrong-broadcast"
    assert refusal(node, *plan_for(bench, model | {"more": torch.zeros(1)})) == "wrong-broadcast"


def test_changed_bytes_under_an_honest_plan_are_refused(node, bench):
    plan, vectors, _ = plan_for(bench, model_of(bench))
    from fedcad.shared.canonical import hash_of_vectors

    arrived = {"model": vectors["model"] + np.float32(1e-6)}
    assert refusal(node, plan, arrived, hash_of_vectors(arrived)) == "wrong-broadcast"


def test_no_training_data(bench, tmp_path):
    node = Node("a", tiny_study.spread_cases(train=0), bench, state=tmp_path)
    assert refusal(node, *plan_for(bench, model_of(bench))) == "no-data"
    answer = node.answer(*plan_for(bench, model_of(bench), work=("validate", "test"), round_number=0))
    assert set(answer.statistics) == {"validation", "test"}


def test_empty_parts_give_no_statistics(bench, tmp_path):
    node = Node("a", tiny_study.spread_cases(validation=0, test=0), bench, state=tmp_path)
    answer = train(node, model_of(bench), round_number=1, last=0, work=("validate", "train", "test"))
    assert answer.statistics == {}


def test_information_is_counts(node, bench):
    info = node.info()
    assert info.cases == {"train": 10, "validation": 4, "test": 6}
    assert info.study_hash == bench.contract.study_hash
    assert json.loads(info.summary) == {"parts": {}}


def test_algorithm_that_changes_its_argument_changes_nothing_outside(tmp_path, data):
    bench = bench_with(tiny_study.make_study(), Greedy(FEDAVG))
    node = Node("a", data, bench, state=tmp_path)
    plan, vectors, digest = plan_for(bench, model_of(bench))
    before = vectors["model"].copy()
    node.answer(plan, vectors, digest)
    assert np.array_equal(vectors["model"], before)


class TestControlled:
    """State at the site over rounds of which some do not count."""

    @pytest.fixture
    def bench(self):
        return bench_with(tiny_study.make_study(), Controlled(FEDAVG))

    @pytest.fixture
    def node(self, bench, data, tmp_path):
        return Node("a", data, bench, state=tmp_path)

    def test_round_that_did_not_count_is_as_if_it_had_not_been(self, bench, data, tmp_path):
        model = model_of(bench)
        disturbed = Node("a", data, bench, state=tmp_path / "1")
        train(disturbed, model, round_number=1, last=0)
        train(disturbed, {"model": model["model"] + 1}, round_number=2, last=1)
        third = train(disturbed, model, round_number=3, last=1)
        undisturbed = Node("a", data, bench, state=tmp_path / "2")
        train(undisturbed, model, round_number=1, last=0)
        expected = train(undisturbed, model, round_number=3, last=1)
        assert np.array_equal(third.vectors["model"], expected.vectors["model"])

    def test_counted_round_changes_the_next(self, bench, node, data, tmp_path):
        model = model_of(bench)
        train(node, model, round_number=1, last=0)
        with_state = train(node, model, round_number=2, last=1)
        fresh = Node("a", data, bench, state=tmp_path / "other")
        without = train(fresh, model, round_number=2, last=0)
        assert not np.array_equal(with_state.vectors["model"], without.vectors["model"])

    def test_repeated_round_gives_the_same_bits(self, bench, node):
        """The coordinator was killed after the site had answered, and asks again."""
        train(node, model_of(bench), round_number=1, last=0)
        first = train(node, model_of(bench), round_number=2, last=1)
        again = train(node, model_of(bench), round_number=2, last=1)
        assert np.array_equal(first.vectors["model"], again.vectors["model"])
        third = train(node, model_of(bench), round_number=3, last=2)
        assert np.isfinite(third.vectors["model"]).all()

    def test_reopened_node_goes_on(self, bench, node, data, tmp_path):
        train(node, model_of(bench), round_number=1, last=0)
        again = Node("a", data, bench, state=tmp_path)
        here = train(again, model_of(bench), round_number=2, last=1)
        assert np.array_equal(
            here.vectors["model"], train(node, model_of(bench), round_number=2, last=1).vectors["model"]
        )

    def test_lost_state_is_said_not_invented(self, bench, data, tmp_path):
        node = Node("a", data, bench, state=tmp_path / "empty")
        with pytest.raises(CheckpointError, match="round 4"):
            train(node, model_of(bench), round_number=5, last=4)

    def test_refused_plan_commits_nothing(self, bench, node, tmp_path):
        train(node, model_of(bench), round_number=1, last=0)
        node.answer(*plan_for(bench, model_of(bench), round_number=2, last=1, broadcast_hash="f" * 64))
        assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["pending.safetensors"]


class TestPersonal:
    """Normalisation stays at the site (Li et al. 2021, FedBN)."""

    PERSONAL = frozenset(
        f"classifier/norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    )

    @pytest.fixture
    def bench(self):
        study = tiny_study.make_study(model=BATCH_NORM)
        return bench_with(study, LocalNorms(FEDAVG), self.PERSONAL)

    @pytest.fixture
    def sites(self, bench, tmp_path):
        return {
            name: Node(name, tiny_study.spread_cases(seed=seed), bench, state=tmp_path / name)
            for seed, name in enumerate("ab")
        }

    def test_personal_entries_are_not_in_the_vector(self, bench):
        exchanged = sum(
            entry.size for entry in bench.contract.layout.entries if entry.name not in self.PERSONAL
        )
        assert bench.contract.layout.size == exchanged - 1  # num_batches_tracked is an integer
        assert len(bench.first_personal()) == 4

    def test_they_are_trained_and_kept(self, bench, sites, tmp_path):
        first = bench.first_personal()
        train(sites["a"], model_of(bench), round_number=1, last=0)
        kept = sites["a"]._store.begin(1, {})
        for name in self.PERSONAL:
            assert not torch.equal(kept[f"personal/{name}"], first[f"personal/{name}"]), name

    def test_sites_that_share_a_process_do_not_share_them(self, bench, sites, tmp_path):
        for number in (1, 2, 3):
            shared = {
                n: train(s, model_of(bench), round_number=number, last=number - 1) for n, s in sites.items()
            }
        fresh = bench_with(bench.contract.study, LocalNorms(FEDAVG), self.PERSONAL)
        alone = Node("b", tiny_study.spread_cases(seed=1), fresh, state=tmp_path / "alone")
        for number in (1, 2, 3):
            expected = train(alone, model_of(bench), round_number=number, last=number - 1)
        assert np.array_equal(shared["b"].vectors["model"], expected.vectors["model"])

    def test_validation_and_test_use_them(self, bench, sites):
        plan = plan_for(bench, model_of(bench), work=("validate",), round_number=0)
        untrained = sites["a"].answer(*plan).statistics["validation"]
        train(sites["a"], model_of(bench), round_number=1, last=0)
        after = plan_for(bench, model_of(bench), work=("validate",), round_number=0, last=1)
        personal = sites["a"].answer(*after).statistics["validation"]
        assert not np.array_equal(untrained, personal)
        train(sites["b"], model_of(bench), round_number=1, last=0)
        test = plan_for(bench, model_of(bench), work=("test",), round_number=0)
        first = sites["a"].answer(*test).statistics["test"]
        assert np.array_equal(sites["a"].answer(*test).statistics["test"], first)

    def test_round_that_did_not_count_leaves_them(self, bench, sites, tmp_path):
        node = sites["a"]
        train(node, model_of(bench), round_number=1, last=0)
        committed = node._store.begin(1, {})
        train(node, {"model": model_of(bench)["model"] * 2}, round_number=2, last=1)
        back = node._store.begin(1, {})
        assert all(torch.equal(back[name], committed[name]) for name in committed)
