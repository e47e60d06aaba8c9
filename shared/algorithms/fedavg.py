"""FedAvg: McMahan et al. (2017), "Communication-efficient learning of deep networks", arXiv:1602.05629.

Algorithm 1, with the mean written as an update: ``w ← w + Σ n_k (w_k − w) / Σ n_k``.
"""

from collections.abc import Mapping

from torch import Tensor

from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedAvgConfig, FedOptConfig, FedProxConfig
from fedcad.shared.layout import Layout


class FedAvg:
    """Weighted mean of the sites' updates. Other algorithms wrap it for the halves that they share."""

    needs_individual_updates = False

    def __init__(self, config: FedAvgConfig | FedProxConfig | FedOptConfig) -> None:
        """Keep the weighting."""
        self._weighting = config.weighting

    def personal(self, layout: Layout) -> frozenset[str]:
        """Nothing is personal."""
        del layout
        return frozenset()

    def weight(self, cases: int) -> int:
        """Return the number of cases, or 1."""
        return cases if self._weighting == "cases" else 1

    def sizes(self, layout: Layout) -> Mapping[str, int]:
        """Only the model travels."""
        return {"model": layout.size}

    def init_server(self, initial: Tensor, layout: Layout) -> State:
        """Start from the initial parameters."""
        del layout
        return {"model": initial.clone()}

    def broadcast(self, state: State) -> Vectors:
        """Send w."""
        return {"model": state["model"]}

    def init_site(self, layout: Layout) -> State:
        """Keep nothing between rounds."""
        del layout
        return {}

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Train from w and return w_k − w."""
        start = broadcast["model"]
        return state, {"model": trainer.train(start) - start}

    def apply(self, state: State, sums: Sums) -> State:
        """W ← w + mean update."""
        return {"model": state["model"] + sums.means["model"]}
