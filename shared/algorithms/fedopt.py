"""FedOpt: Reddi et al. (2021), "Adaptive federated optimization", arXiv:2003.00295.

Algorithms 1 and 2: the negative mean update is the gradient of a torch optimizer at the coordinator. ``sgd``
with momentum is FedAvgM; ``adam``, ``adagrad`` and ``yogi`` are FedAdam, FedAdagrad and FedYogi. The site's
half is FedAvg's.

As in the paper, Adam and Yogi are not bias-corrected and the second moment starts at τ²; torch's Adam cannot
do that, so :class:`Adaptive` holds the three lines in which the paper's methods differ.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fedcad.shared.algorithms.averaging import Averaging
from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedOptConfig, ServerOptimizerConfig


class FedOpt(Averaging):
    """A torch optimizer steps on the negative mean update."""

    def __init__(self, config: FedOptConfig) -> None:
        """Keep the server optimizer's settings."""
        super().__init__(config)
        self._config = config.server_optimizer

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Train from w and return w_k − w."""
        start = broadcast["model"]
        return state, {"model": trainer.train(start) - start}

    def apply(self, state: State, sums: Sums) -> State:
        """Let the optimizer step on the pseudo-gradient −Δ, its own state carried in ours."""
        parameter = torch.nn.Parameter(state["model"].clone())
        optimizer = server_optimizer(self._config, [parameter])
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                optimizer.state[parameter][name.removeprefix("optimizer.")] = tensor.clone()
        parameter.grad = -sums.means["model"]
        optimizer.step()
        kept = {f"optimizer.{name}": value for name, value in optimizer.state[parameter].items()}
        return {"model": parameter.detach(), **{k: v for k, v in kept.items() if isinstance(v, Tensor)}}


def server_optimizer(
    config: ServerOptimizerConfig, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the coordinator's optimizer."""
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)
    return Adaptive(parameters, config)


class Adaptive(torch.optim.Optimizer):
    """Algorithm 2 of the paper: ``w ← w + η m / (√v + τ)`` with v after Adagrad, Adam or Yogi."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: ServerOptimizerConfig) -> None:
        """Keep η, β₁, β₂, τ and which second moment is used."""
        super().__init__(parameters, {"lr": config.learning_rate})
        self._config = config

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step on each parameter's gradient g = −Δ."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                self._step_one(parameter, group["lr"])

    def _step_one(self, parameter: torch.nn.Parameter, rate: float) -> None:
        config, moments, gradient = self._config, self.state[parameter], parameter.grad
        if gradient is None:
            return
        if not moments:
            moments["first"] = torch.zeros_like(parameter)
            moments["second"] = torch.full_like(parameter, config.tau**2)
        first, second, square = moments["first"], moments["second"], gradient * gradient
        beta_1 = 0.0 if config.name == "adagrad" else config.beta_1
        first.mul_(beta_1).add_(gradient, alpha=1 - beta_1)
        if config.name == "adagrad":
            second.add_(square)
        elif config.name == "adam":
            second.mul_(config.beta_2).add_(square, alpha=1 - config.beta_2)
        else:
            second.sub_(square * torch.sign(second - square), alpha=1 - config.beta_2)
        parameter.sub_(first / (second.sqrt() + config.tau), alpha=rate)
