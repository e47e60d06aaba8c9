"""FedProx: Li et al. (2020), "Federated optimization in heterogeneous networks", arXiv:1812.06127.

Equation 2: each site minimises ``F_k(w) + μ/2 ‖w − w_t‖²``, so that its gradient gains ``μ (w − w_t)``.
The coordinator's half is FedAvg's.
"""

from collections.abc import Mapping

from torch import Tensor

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedProxConfig
from fedcad.shared.layout import Layout


class FedProx:
    """FedAvg with a proximal pull at the site."""

    needs_individual_updates = False

    def __init__(self, config: FedProxConfig) -> None:
        """Keep μ; share FedAvg's other half."""
        self._average = FedAvg(config)
        self._mu = config.proximal_mu

    def personal(self, layout: Layout) -> frozenset[str]:
        """Nothing is personal."""
        return self._average.personal(layout)

    def weight(self, cases: int) -> int:
        """Return the number of cases, or 1."""
        return self._average.weight(cases)

    def sizes(self, layout: Layout) -> Mapping[str, int]:
        """Only the model travels."""
        return self._average.sizes(layout)

    def init_server(self, initial: Tensor, layout: Layout) -> State:
        """Start from the initial parameters."""
        return self._average.init_server(initial, layout)

    def broadcast(self, state: State) -> Vectors:
        """Send w_t."""
        return self._average.broadcast(state)

    def init_site(self, layout: Layout) -> State:
        """Keep nothing between rounds."""
        return self._average.init_site(layout)

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Train with the gradient ``∇F_k(w) + μ (w − w_t)`` and return w_k − w_t."""
        start = broadcast["model"]
        anchor = start[: trainer.trained_size]

        def pull(parameters: Tensor, gradients: Tensor) -> None:
            # The difference first: μ w and μ w_t apart would drown a small gradient in rounding.
            gradients.add_(parameters.detach() - anchor.to(parameters.device), alpha=self._mu)

        return state, {"model": trainer.train(start, pull) - start}

    def apply(self, state: State, sums: Sums) -> State:
        """W ← w + mean update."""
        return self._average.apply(state, sums)
