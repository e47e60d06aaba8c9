"""FedOpt against the paper's formulas, written again in NumPy, and against torch's own SGD."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from study_factory import LAYOUT

from fedcad.shared.algorithms.fedopt import FedOpt
from fedcad.shared.algorithms.interface import State, Sums
from fedcad.shared.config.study import FedOptConfig

SIZE = 6
START = np.linspace(-1, 1, SIZE)
DELTAS = [np.random.default_rng(seed).normal(size=SIZE).round(3) for seed in range(3)]
"""Three mean updates Δ."""
SETTINGS: dict[str, Any] = {"learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}


def fedopt(name: str, **changes: Any) -> FedOpt:
    plain = {"name": "fedopt", "server_optimizer": {"name": name, **SETTINGS, **changes}}
    return FedOpt(FedOptConfig.model_validate(plain))


def sums(delta: Any) -> Sums:
    return Sums({"model": torch.tensor(delta, dtype=torch.float32)}, {"model": 1}, 1, 1)


def run(algorithm: FedOpt, deltas: list[Any], *, through_files: bool = False) -> State:
    state = algorithm.init_server(torch.tensor(START, dtype=torch.float32), LAYOUT)
    for delta in deltas:
        state = algorithm.apply(state, sums(delta))
        if through_files:
            state = load(save(state))
    return state


def paper(name: str) -> Any:
    """Algorithm 2 of Reddi et al. in float64: m ← β₁ m + (1 − β₁) Δ; v; x ← x + η m / (√v + τ)."""
    eta, beta_1, beta_2, tau = SETTINGS.values()
    x, m, v = START.copy(), np.zeros(SIZE), np.full(SIZE, tau**2)
    for delta in DELTAS:
        # FedAdagrad of Algorithm 2 takes the update itself where β₁ = 0.
        beta = 0.0 if name == "adagrad" else beta_1
        m = beta * m + (1 - beta) * delta
        v = {
            "adagrad": v + delta**2,
            "yogi": v - (1 - beta_2) * delta**2 * np.sign(v - delta**2),
            "adam": beta_2 * v + (1 - beta_2) * delta**2,
        }[name]
        x = x + eta * m / (np.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_three_steps_are_the_papers(name: str) -> None:
    found = run(fedopt(name), DELTAS)["model"].numpy()
    np.testing.assert_allclose(found, paper(name), rtol=1e-5, atol=1e-6)


def test_the_three_methods_differ() -> None:
    found = [run(fedopt(name), DELTAS)["model"] for name in ("adagrad", "yogi", "adam", "sgd")]
    for i, one in enumerate(found):
        assert not any(torch.allclose(one, other) for other in found[:i])


def test_yogis_second_moment_rises_and_falls_by_hand() -> None:
    """β₂ = ½, τ = 1: v = 1; Δ = 2: v = 1 − ½·4·sign(1 − 4) = 3; Δ = 1: v = 3 − ½·1·sign(3 − 1) = 2.5."""
    algorithm = fedopt("yogi", beta_1=0.0, beta_2=0.5, tau=1.0, learning_rate=1.0)
    state = run(algorithm, [np.full(SIZE, 2.0)])
    assert state["optimizer.second"].tolist() == [3.0] * SIZE
    state = algorithm.apply(state, sums(np.ones(SIZE)))
    assert state["optimizer.second"].tolist() == [2.5] * SIZE


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs_on_the_negative_update_bit_by_bit(momentum: float) -> None:
    parameter = torch.nn.Parameter(torch.tensor(START, dtype=torch.float32))
    optimizer = torch.optim.SGD([parameter], lr=0.3, momentum=momentum)
    for delta in DELTAS:
        parameter.grad = -torch.tensor(delta, dtype=torch.float32)
        optimizer.step()
    assert torch.equal(run(fedopt("sgd", momentum=momentum), DELTAS)["model"], parameter.detach())


def test_fedavgm_by_hand() -> None:
    """η = 1, β = 0.5, Δ = 1 then 1: steps 1 and 1.5."""
    algorithm = fedopt("sgd", momentum=0.5, learning_rate=1.0)
    found = run(algorithm, [np.ones(SIZE), np.ones(SIZE)])["model"].double().numpy()
    np.testing.assert_allclose(found, START + 2.5, rtol=1e-6)


def test_sgd_without_momentum_at_rate_one_is_fedavg() -> None:
    found = run(fedopt("sgd", learning_rate=1.0), DELTAS[:1])["model"].double().numpy()
    np.testing.assert_allclose(found, START + DELTAS[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "yogi"])
def test_a_state_that_went_through_a_file_goes_on_bit_by_bit(name: str) -> None:
    algorithm = fedopt(name, momentum=0.9 if name == "sgd" else 0.0)
    one, other = run(algorithm, DELTAS), run(algorithm, DELTAS, through_files=True)
    assert one.keys() == other.keys()
    assert len(one) > 1, "the optimizer's own state is carried"
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "yogi"])
def test_the_optimizers_state_matters(name: str) -> None:
    """Otherwise the test above could pass with a state that is never used."""
    algorithm = fedopt(name, momentum=0.9 if name == "sgd" else 0.0)
    state = run(algorithm, DELTAS[:2])
    kept = algorithm.apply(state, sums(DELTAS[2]))
    forgotten = algorithm.apply({"model": state["model"]}, sums(DELTAS[2]))
    assert not torch.equal(kept["model"], forgotten["model"])


def test_momentum_goes_on_without_updates() -> None:
    algorithm = fedopt("sgd", momentum=0.5, learning_rate=1.0)
    state = run(algorithm, [np.ones(SIZE)])
    moved = algorithm.apply(state, sums(np.zeros(SIZE)))
    torch.testing.assert_close(moved["model"] - state["model"], torch.full((SIZE,), 0.5))


def test_the_site_half_is_fedavgs() -> None:
    algorithm = fedopt("adam")
    assert algorithm.personal(LAYOUT) == frozenset()
    assert algorithm.init_site(LAYOUT) == {}
    assert algorithm.weights(7) == {"model": 7}
