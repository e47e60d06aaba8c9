"""FedProx: Li et al. (2020), "Federated optimization in heterogeneous networks", arXiv:1812.06127.

Equation 2: each site minimises ``F_k(w) + μ/2 ‖w − w_t‖²``, so that its gradient gains ``μ (w − w_t)``.
The coordinator's half is FedAvg's.
"""

from torch import Tensor

from fedcad.shared.algorithms.averaging import Averaging
from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedProxConfig


class FedProx(Averaging):
    """FedAvg with a proximal pull at the site."""

    def __init__(self, config: FedProxConfig) -> None:
        """Keep μ."""
        super().__init__(config)
        self._mu = config.proximal_mu

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Train with the gradient ``∇F_k(w) + μ (w − w_t)`` and return w_k − w_t."""
        start = broadcast["model"]
        anchor = start[: trainer.trained_size].to(trainer.device)

        def pull(parameters: Tensor, gradients: Tensor) -> None:
            # The difference first: μ w and μ w_t apart would drown a small gradient in rounding.
            gradients.add_(parameters.detach() - anchor, alpha=self._mu)

        return state, {"model": trainer.train(start, pull) - start}

    def apply(self, state: State, sums: Sums) -> State:
        """Add the mean update to w."""
        return {"model": state["model"] + sums.means["model"]}
