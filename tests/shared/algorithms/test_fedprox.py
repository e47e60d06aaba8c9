"""FedProx against the explicit proximal loss, differentiated by autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from study_factory import LAYOUT, LogisticSite, LogisticTrainer, logits_of, make_contract

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.fedprox import FedProx
from fedcad.shared.algorithms.interface import Correction
from fedcad.shared.config.study import FedAvgConfig, FedProxConfig

SITE = LogisticSite("a", make_contract())
START = torch.linspace(-1, 1, LAYOUT.size)


def fedprox(mu: float) -> FedProx:
    return FedProx(FedProxConfig(name="fedprox", proximal_mu=mu))


class Recorder:
    """Hands one point to the correction and keeps what became of the gradient."""

    cases = 1

    def __init__(self, at: torch.Tensor, gradient: torch.Tensor) -> None:
        self.trained_size = len(at)
        self.device = at.device
        self.at, self.gradient = at, gradient.clone()

    def train(self, start: torch.Tensor, correct: Correction | None = None) -> torch.Tensor:
        assert correct is not None
        before = self.at.clone()
        assert correct(self.at, self.gradient) is None  # type: ignore[func-returns-value]
        assert torch.equal(self.at, before), "a correction changes gradients, not parameters"
        return start


def corrected(mu: float, start: torch.Tensor, at: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    recorder = Recorder(at, gradient)
    fedprox(mu).local({}, {"model": start}, recorder)
    return recorder.gradient


def test_the_pull_by_hand() -> None:
    """μ = 0.5: g + 0.5 (w − w_t) = (1, 1) + 0.5 ((4, 0) − (2, 6)) = (2, −2); buffers feel none."""
    start = torch.tensor([2.0, 6.0, 99.0])
    found = corrected(0.5, start, torch.tensor([4.0, 0.0]), torch.ones(2))
    assert found.tolist() == [2.0, -2.0]


@given(st.floats(1e-3, 1000), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_the_pull_is_the_gradient_of_the_proximal_term(mu: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start, at, gradient = torch.randn(3, 5, generator=generator)
    point = at.clone().requires_grad_()
    (mu / 2 * ((point - start) ** 2).sum()).backward()
    assert point.grad is not None
    torch.testing.assert_close(corrected(mu, start, at, gradient), gradient + point.grad)


@pytest.mark.parametrize("mu", [1e-3, 1.0, 1000.0])
def test_where_training_starts_there_is_no_pull_to_the_last_bit(mu: float) -> None:
    """μ w − μ w_t computed apart would leave rounding larger than a small gradient."""
    start = torch.linspace(-7, 7, 6)
    gradient = torch.full((6,), 1e-6)
    assert torch.equal(corrected(mu, start, start.clone(), gradient), gradient)


@pytest.mark.parametrize("mu", [0.1, 1.5])
def test_local_training_minimises_the_explicit_proximal_loss(mu: float) -> None:
    features, labels = SITE.data("train")
    trainer = LogisticTrainer(features, labels, rate=0.2, steps=4)
    _, update = fedprox(mu).local({}, {"model": START}, trainer)
    trained = START[:6].clone().requires_grad_()
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(logits_of(trained, features), labels)
        loss = loss + mu / 2 * ((trained - START[:6]) ** 2).sum()
        (gradient,) = torch.autograd.grad(loss, [trained])
        trained = (trained.detach() - 0.2 * gradient).requires_grad_()
    torch.testing.assert_close(START[:6] + update["model"][:6], trained.detach(), rtol=1e-5, atol=1e-6)


def test_a_stronger_pull_stays_nearer_and_a_tiny_one_is_fedavg() -> None:
    trainer = LogisticTrainer(*SITE.data("train"), rate=0.2, steps=6)
    average = FedAvg(FedAvgConfig(name="fedavg"))
    _, free = average.local({}, {"model": START}, trainer)
    moved = {mu: fedprox(mu).local({}, {"model": START}, trainer)[1]["model"][:6] for mu in (1e-6, 0.5, 2.0)}
    torch.testing.assert_close(moved[1e-6], free["model"][:6], rtol=1e-4, atol=1e-6)
    assert moved[2.0].norm() < moved[0.5].norm() < free["model"][:6].norm()


def test_nothing_is_personal_and_nothing_is_kept_at_a_site() -> None:
    assert fedprox(1.0).personal(LAYOUT) == frozenset()
    assert fedprox(1.0).init_site(LAYOUT) == {}
    assert fedprox(1.0).weights(7) == {"model": 7}
