"""What every federated algorithm must do: add a study file's words for a new one to ``ALGORITHMS``.

The rounds, the node and the checkpoints rely on these properties and on nothing else.
"""

from typing import get_args

import pytest
import torch
from safetensors.torch import load, save
from study_factory import ALGORITHMS, LAYOUT, LogisticSite, LogisticTrainer, make_contract, make_study

from fedcad.server.aggregation import Aggregator
from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.interface import Algorithm, State, Sums, Vectors
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.config.study import AlgorithmConfig, FedAvgConfig

INITIAL = torch.linspace(-0.5, 0.5, LAYOUT.size)
SITES = [
    LogisticSite(name, make_contract(), {"train": cases, "validation": 0, "test": 0})
    for name, cases in (("a", 4), ("b", 9))
]


@pytest.fixture(params=list(ALGORITHMS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def algorithm(name: str) -> Algorithm:
    return algorithm_for(make_study(algorithm=name).algorithm)


def trainer_of(site: LogisticSite) -> LogisticTrainer:
    return LogisticTrainer(*site.data("train"))


def bits(state: State | Vectors) -> dict[str, bytes]:
    return {key: tensor.detach().numpy().tobytes() for key, tensor in state.items()}


def sums_of(algorithm: Algorithm, state: State, sites: list[LogisticSite] = SITES) -> Sums:
    """One round's sums of real updates."""
    aggregator = Aggregator()
    broadcast = algorithm.broadcast(state)
    for number, site in enumerate(sites):
        _, vectors = algorithm.local(algorithm.init_site(LAYOUT), broadcast, trainer_of(site))
        if number == 0:
            totals = dict.fromkeys(algorithm.sizes(LAYOUT), 100)
            aggregator.begin(algorithm.sizes(LAYOUT), totals, enrolled=len(sites))
        weights = algorithm.weights(site.cases["train"])
        aggregator.add({key: vector.numpy() for key, vector in vectors.items()}, weights=weights)
    return aggregator.close()


def run(algorithm: Algorithm, rounds: int) -> State:
    state = algorithm.init_server(INITIAL, LAYOUT)
    for _ in range(rounds):
        state = algorithm.apply(state, sums_of(algorithm, state))
    return state


def test_every_algorithm_of_a_study_file_is_tested_here() -> None:
    configs = get_args(get_args(AlgorithmConfig)[0])
    tested = {type(make_study(algorithm=name).algorithm) for name in ALGORITHMS}
    assert tested == set(configs)


def test_the_first_state_holds_a_copy_of_the_initial_parameters(algorithm: Algorithm) -> None:
    initial = INITIAL.clone()
    state = algorithm.init_server(initial, LAYOUT)
    initial.zero_()
    assert torch.equal(state["model"], INITIAL)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_the_broadcast_has_the_model_in_every_round(algorithm: Algorithm) -> None:
    for rounds in (0, 1, 2):
        state = run(algorithm, rounds)
        broadcast = algorithm.broadcast(state)
        assert torch.equal(broadcast["model"], state["model"])
        for key, vector in broadcast.items():
            assert (vector.dtype, vector.shape) == (torch.float32, (algorithm.sizes(LAYOUT)[key],))
            assert not vector.requires_grad


def test_weights_are_whole_numbers_above_zero_that_do_not_fall_with_cases(algorithm: Algorithm) -> None:
    weights = [algorithm.weights(cases) for cases in (1, 2, 100, 10**6)]
    for name in algorithm.sizes(LAYOUT):
        assert all(type(each[name]) is int and each[name] > 0 for each in weights)
        assert [each[name] for each in weights] == sorted(each[name] for each in weights)
    assert all(set(each) == set(algorithm.sizes(LAYOUT)) for each in weights)


def test_personal_entries_are_entries(algorithm: Algorithm) -> None:
    assert algorithm.personal(LAYOUT) <= {entry.name for entry in LAYOUT.entries}


def test_a_site_sends_float32_vectors_of_the_layout_and_changes_nothing_in_place(
    algorithm: Algorithm,
) -> None:
    broadcast = algorithm.broadcast(run(algorithm, 1))
    state = algorithm.init_site(LAYOUT)
    before, before_state = bits(broadcast), bits(state)
    after, vectors = algorithm.local(state, broadcast, trainer_of(SITES[0]))
    assert bits(broadcast) == before
    assert bits(state) == before_state
    assert "model" in vectors
    for key, vector in vectors.items():
        assert (vector.dtype, vector.shape) == (torch.float32, (algorithm.sizes(LAYOUT)[key],))
        assert torch.isfinite(vector).all()
    assert vectors["model"].abs().sum() > 0
    assert all(isinstance(value, torch.Tensor) for value in after.values())


def test_the_update_is_local_minus_global(algorithm: Algorithm) -> None:
    """The buffer at the end, which no optimizer touches, shows the sign."""
    start = algorithm.broadcast(algorithm.init_server(INITIAL, LAYOUT))
    _, vectors = algorithm.local(algorithm.init_site(LAYOUT), start, trainer_of(SITES[0]))
    features, _ = SITES[0].data("train")
    torch.testing.assert_close(INITIAL[6:] + vectors["model"][6:], features.mean(0))


def test_a_site_without_state_of_its_own_stays_without(algorithm: Algorithm) -> None:
    first = algorithm.init_site(LAYOUT)
    after, _ = algorithm.local(first, algorithm.broadcast(run(algorithm, 0)), trainer_of(SITES[0]))
    assert after.keys() == first.keys()


def test_a_round_is_deterministic(algorithm: Algorithm, name: str) -> None:
    other = algorithm_for(make_study(algorithm=name).algorithm)
    assert bits(run(algorithm, 3)) == bits(run(other, 3))


def test_applying_changes_neither_state_nor_sums_in_place(algorithm: Algorithm) -> None:
    state = run(algorithm, 2)
    sums = sums_of(algorithm, state)
    before, means = bits(state), bits(dict(sums.means))
    after = algorithm.apply(state, sums)
    assert bits(state) == before
    assert bits(dict(sums.means)) == means
    assert bits(after) != before
    assert all(not value.requires_grad for value in after.values())
    shared = {value.data_ptr() for value in state.values()} & {value.data_ptr() for value in after.values()}
    assert not shared


def test_the_object_itself_remembers_nothing(algorithm: Algorithm, name: str) -> None:
    """All memory is in the state: what a checkpoint holds is enough."""
    state = run(algorithm, 2)
    sums = sums_of(algorithm, state)
    fresh = algorithm_for(make_study(algorithm=name).algorithm)
    assert bits(fresh.apply(state, sums)) == bits(algorithm.apply(state, sums))


def test_a_state_goes_through_a_file(algorithm: Algorithm) -> None:
    state = run(algorithm, 2)
    again = load(save({key: value.contiguous() for key, value in state.items()}))
    assert bits(again) == bits(state)
    sums = sums_of(algorithm, state)
    assert bits(algorithm.apply(again, sums)) == bits(algorithm.apply(state, sums))


def test_no_change_leaves_the_first_model(algorithm: Algorithm) -> None:
    """Momentum may carry a later one on; there is none yet."""
    state = algorithm.init_server(INITIAL, LAYOUT)
    zero = {key: torch.zeros_like(value) for key, value in sums_of(algorithm, state).means.items()}
    assert torch.equal(algorithm.apply(state, Sums(zero, dict.fromkeys(zero, 1), 1, 1))["model"], INITIAL)


@pytest.mark.parametrize("cases", [1, 6])
def test_the_mean_of_one_site_is_its_update_whatever_its_weight(algorithm: Algorithm, cases: int) -> None:
    """One site: the sums that reach ``apply`` are FedAvg's, and do not depend on how many cases it has."""
    state = algorithm.init_server(INITIAL, LAYOUT)
    start = algorithm.broadcast(state)
    _, vectors = algorithm.local(algorithm.init_site(LAYOUT), start, trainer_of(SITES[0]))
    results = []
    for weights in (algorithm.weights(cases), algorithm.weights(10 * cases)):
        aggregator = Aggregator()
        aggregator.begin(algorithm.sizes(LAYOUT), weights, enrolled=1)
        aggregator.add({key: vector.numpy() for key, vector in vectors.items()}, weights=weights)
        sums = aggregator.close()
        torch.testing.assert_close(sums.means["model"], vectors["model"], rtol=0, atol=1.2e-7)
        results.append(algorithm.apply(state, sums)["model"])
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["fedavg", "fedavg-uniform", "fedprox"])
def test_one_site_on_its_own_ends_where_it_trained_to(name: str) -> None:
    algorithm = algorithm_for(make_study(algorithm=name).algorithm)
    state = algorithm.init_server(INITIAL, LAYOUT)
    _, vectors = algorithm.local({}, algorithm.broadcast(state), trainer_of(SITES[0]))
    found = algorithm.apply(state, sums_of(algorithm, state, SITES[:1]))["model"]
    torch.testing.assert_close(found, INITIAL + vectors["model"], rtol=0, atol=2e-7)
    if name != "fedprox":
        average = FedAvg(FedAvgConfig(name="fedavg"))
        assert torch.equal(found, average.apply(state, sums_of(average, state, SITES[:1]))["model"])


def test_what_travels_has_the_declared_sizes(algorithm: Algorithm) -> None:
    sizes = algorithm.sizes(LAYOUT)
    broadcast = algorithm.broadcast(algorithm.init_server(INITIAL, LAYOUT))
    _, vectors = algorithm.local(algorithm.init_site(LAYOUT), broadcast, trainer_of(SITES[0]))
    assert sizes["model"] == LAYOUT.size
    for travelling in (broadcast, vectors):
        assert {key: len(vector) for key, vector in travelling.items()} == sizes
