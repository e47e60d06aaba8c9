"""FedAvg by hand."""

import pytest
import torch
from study_factory import LAYOUT

from fedcad.server.aggregation import Aggregator
from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.interface import Correction
from fedcad.shared.config.study import FedAvgConfig


class Shift:
    """A trainer whose result is known: it adds a constant."""

    cases, trained_size, steps, learning_rate = 1, 2, 1, 1.0

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def train(self, start: torch.Tensor, correct: Correction | None = None) -> torch.Tensor:
        assert correct is None
        return start + self.amount


def round_of(weighting: str) -> torch.Tensor:
    """Sites with 1 and 3 cases that move w by +4 and -8."""
    algorithm = FedAvg(FedAvgConfig(name="fedavg", weighting=weighting))  # type: ignore[arg-type]
    state = algorithm.init_server(torch.tensor([10.0, 20.0]), LAYOUT)
    aggregator = Aggregator()
    aggregator.begin({"model": 2}, {"model": 4}, enrolled=2)
    for cases, amount in ((1, 4.0), (3, -8.0)):
        _, update = algorithm.local({}, algorithm.broadcast(state), Shift(amount))
        assert update["model"].tolist() == [amount, amount]
        aggregator.add({"model": update["model"].numpy()}, weights=algorithm.weights(cases))
    return algorithm.apply(state, aggregator.close())["model"]


def test_weighted_by_cases() -> None:
    """(1·4 + 3·(−8)) / 4 = −5."""
    assert round_of("cases").tolist() == [5.0, 15.0]


def test_weighted_uniformly() -> None:
    """(4 − 8) / 2 = −2."""
    assert round_of("uniform").tolist() == [8.0, 18.0]


@pytest.mark.parametrize(("weighting", "expected"), [("cases", [1, 7, 10**9]), ("uniform", [1, 1, 1])])
def test_weights(weighting: str, expected: list[int]) -> None:
    algorithm = FedAvg(FedAvgConfig(name="fedavg", weighting=weighting))  # type: ignore[arg-type]
    assert [algorithm.weights(cases)["model"] for cases in (1, 7, 10**9)] == expected


def test_nothing_is_personal_and_nothing_is_kept_at_a_site() -> None:
    algorithm = FedAvg(FedAvgConfig(name="fedavg"))
    assert algorithm.personal(LAYOUT) == frozenset()
    assert algorithm.init_site(LAYOUT) == {}
    assert algorithm.needs_individual_updates is False


def test_the_first_state_is_a_copy() -> None:
    initial = torch.zeros(2)
    state = FedAvg(FedAvgConfig(name="fedavg")).init_server(initial, LAYOUT)
    initial.fill_(9)
    assert state["model"].tolist() == [0.0, 0.0]
