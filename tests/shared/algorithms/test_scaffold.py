"""SCAFFOLD on quadratics: by hand, against SGD, and where FedAvg goes astray."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.server.aggregation import Aggregator
from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.interface import Algorithm, Correction, State, Vectors
from fedcad.shared.algorithms.scaffold import Scaffold
from fedcad.shared.config.study import FedAvgConfig, ScaffoldConfig
from fedcad.shared.layout import Entry, Layout, Role

LAYOUT = Layout((Entry("n/w", (1,), "float32", Role.TRAINED), Entry("n/mean", (1,), "float32", Role.BUFFER)))


class Quadratic:
    """Gradient descent on a/2 · (w − b)², and a buffer that becomes b."""

    trained_size = 1
    device = torch.device("cpu")

    def __init__(self, a: float, b: float, *, steps: int, rate: float, cases: int = 1) -> None:
        self.a, self.b, self.asked, self.learning_rate, self.cases = a, b, steps, rate, cases
        self.steps = 0

    def train(self, start: torch.Tensor, correct: Correction | None = None) -> torch.Tensor:
        w = start[:1].clone()
        for _ in range(self.asked):
            gradient = self.a * (w - self.b)
            if correct is not None:
                correct(w, gradient)
            w -= self.learning_rate * gradient
        self.steps = self.asked
        return torch.cat([w, torch.tensor([float(self.b)])]) if self.asked else start.clone()


def scaffold(**knobs: Any) -> Scaffold:
    return Scaffold(ScaffoldConfig(name="scaffold", **knobs))


def one_round(
    algorithm: Algorithm,
    server: State,
    sites: list[State],
    trainers: Sequence[Quadratic],
    *,
    enrolled: int | None = None,
) -> tuple[State, list[State], list[Vectors]]:
    weights = [algorithm.weights(trainer.cases) for trainer in trainers]
    aggregator, sizes = Aggregator(), algorithm.sizes(LAYOUT)
    totals = {name: sum(each[name] for each in weights) for name in sizes}
    aggregator.begin(sizes, totals, enrolled=enrolled or len(trainers))
    after, sent = [], []
    for state, trainer, weight in zip(sites, trainers, weights, strict=True):
        left, vectors = algorithm.local(state, algorithm.broadcast(server), trainer)
        aggregator.add({name: vector.numpy() for name, vector in vectors.items()}, weights=weight)
        after.append(left)
        sent.append(vectors)
    return algorithm.apply(server, aggregator.close()), after, sent


def start(algorithm: Algorithm, sites: int, at: float = 0.0) -> tuple[State, list[State]]:
    return algorithm.init_server(torch.tensor([at, 0.0]), LAYOUT), [
        algorithm.init_site(LAYOUT) for _ in range(sites)
    ]


def value(state: State, name: str = "model") -> float:
    return float(state[name][0])


def test_two_rounds_by_hand() -> None:
    """K = 2, η_l = 1/2, two of N = 4 sites: site A 1/2 (w − 4)², site B (w + 2)².

    Round 1 from x = 0: A goes 0, 2, 3 and B 0, −2, −2, so that Δy = 3, −2 and c_i = −3, 2 (their mean
    gradients). x = 1/2 and c = 2/4 · (−1/2) = −1/4.
    Round 2, A: correction 2.75, y goes 0.5, 0.875, 1.0625; c_A = −3 + 1/4 − 0.5625 = −3.3125, the mean of
    its gradients −3.5 and −3.125. B: correction −2.25, y goes 0.5, −0.875, −0.875.
    """
    algorithm, trainers = scaffold(), [Quadratic(a, b, steps=2, rate=0.5) for a, b in ((1, 4), (2, -2))]
    server, sites = start(algorithm, 2)
    server, sites, sent = one_round(algorithm, server, sites, trainers, enrolled=4)
    assert [value(vectors) for vectors in sent] == [3.0, -2.0]
    assert [value(site, "control") for site in sites] == [-3.0, 2.0]
    assert (value(server), value(server, "control")) == (0.5, -0.25)
    server, sites, sent = one_round(algorithm, server, sites, trainers, enrolled=4)
    assert [value(vectors) for vectors in sent] == [0.5625, -1.375]
    assert [value(site, "control") for site in sites] == [-3.3125, 3.625]
    assert value(server) == 0.5 + (0.5625 - 1.375) / 2
    assert value(server, "control") == -0.25 + (2 / 4) * ((-0.3125 + 1.625) / 2)


def test_the_global_step_size_moves_parameters_and_averages_buffers() -> None:
    trainers = [Quadratic(1, b, steps=2, rate=0.5) for b in (4, -2)]
    results = []
    for rate in (1.0, 2.0):
        algorithm = scaffold(server_learning_rate=rate)
        server, sites = start(algorithm, 2)
        results.append(one_round(algorithm, server, sites, trainers)[0])
    assert value(results[1]) == 2 * value(results[0]) == 1.5
    assert float(results[0]["model"][1]) == float(results[1]["model"][1]) == 1.0


def test_the_model_may_be_weighted_by_cases_and_the_control_never_is() -> None:
    """Δy = 3 and −2 with 1 and 3 cases: (3 − 6) / 4; Δc = −3 and 2: −1/2 either way."""
    for weighting, moved in (("cases", -0.75), ("uniform", 0.5)):
        algorithm = scaffold(weighting=weighting)
        trainers = [Quadratic(a, b, steps=2, rate=0.5, cases=n) for a, b, n in ((1, 4, 1), (2, -2, 3))]
        server, sites = start(algorithm, 2)
        server, _, _ = one_round(algorithm, server, sites, trainers)
        assert (value(server), value(server, "control")) == (moved, -0.5)


@given(st.floats(0.1, 3), st.floats(-3, 3), st.integers(1, 5), st.floats(0.01, 0.2))
@settings(max_examples=40, deadline=None)
def test_one_site_on_its_own_is_sgd(a: float, b: float, steps: int, rate: float) -> None:
    algorithm, trainer = scaffold(), Quadratic(a, b, steps=steps, rate=rate)
    server, sites = start(algorithm, 1)
    plain = torch.tensor([0.0, 0.0])
    first = trainer.train(plain)
    server, sites, sent = one_round(algorithm, server, sites, [trainer])
    assert torch.equal(sent[0]["model"], first - plain)
    for _ in range(3):
        server, sites, _ = one_round(algorithm, server, sites, [trainer])
    for _ in range(4):
        plain = trainer.train(plain)
    torch.testing.assert_close(server["model"], plain, rtol=1e-4, atol=1e-5)


def after(algorithm: Algorithm, trainers: Sequence[Quadratic], rounds: int) -> State:
    server, sites = start(algorithm, len(trainers), at=5.0)
    for _ in range(rounds):
        server, sites, _ = one_round(algorithm, server, sites, trainers)
    return server


curves = st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(-3, 3)), min_size=2, max_size=4)


@given(curves, st.integers(1, 8), st.sampled_from(["cases", "uniform"]))
@settings(max_examples=25, deadline=None)
def test_rounds_lead_to_the_minimum_of_the_mean_loss(
    sites: list[tuple[float, float]], steps: int, weighting: str
) -> None:
    """Σ a (w − b) = 0, with any number of local steps and whatever the model's weights."""
    trainers = [Quadratic(a, b, steps=steps, rate=0.05, cases=1 + i) for i, (a, b) in enumerate(sites)]
    optimum = sum(a * b for a, b in sites) / sum(a for a, _ in sites)
    found = after(scaffold(weighting=weighting), trainers, 400)
    assert value(found) == pytest.approx(optimum, abs=1e-3)
    assert value(found, "control") == pytest.approx(0.0, abs=1e-3)


def test_fedavg_with_several_local_steps_does_not_get_there() -> None:
    """With a = 1, 4 and b = 2, −1/2 the minimum is 0; FedAvg ends at Σ (1 − (1 − η a)^K) (b − w) = 0."""
    trainers = [Quadratic(a, b, steps=8, rate=0.1) for a, b in ((1, 2), (4, -0.5))]
    pull = [1 - (1 - 0.1 * trainer.a) ** 8 for trainer in trainers]
    biased = (pull[0] * 2 - pull[1] * 0.5) / sum(pull)
    fedavg = FedAvg(FedAvgConfig(name="fedavg", weighting="uniform"))
    assert biased > 0.4
    assert value(after(fedavg, trainers, 200)) == pytest.approx(biased, abs=1e-4)
    assert value(after(scaffold(), trainers, 200)) == pytest.approx(0.0, abs=1e-4)


def test_where_nothing_is_trained_nothing_changes() -> None:
    algorithm, trainer = scaffold(), Quadratic(1, 4, steps=0, rate=0.5)
    server, sites = start(algorithm, 1, at=3.0)
    sites[0]["control"] += 2
    left, vectors = algorithm.local(sites[0], algorithm.broadcast(server), trainer)
    assert value(left, "control") == 2.0
    assert all(not vector.any() for vector in vectors.values())
    assert algorithm.personal(LAYOUT) == frozenset()
