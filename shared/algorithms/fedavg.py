"""FedAvg: McMahan et al. (2017), "Communication-efficient learning of deep networks", arXiv:1602.05629.

Algorithm 1, with the mean written as an update: ``w ← w + Σ n_k (w_k − w) / Σ n_k``.
"""

from fedcad.shared.algorithms.averaging import Averaging
from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors


class FedAvg(Averaging):
    """Weighted mean of the sites' updates."""

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Train from w and return w_k − w."""
        start = broadcast["model"]
        return state, {"model": trainer.train(start) - start}

    def apply(self, state: State, sums: Sums) -> State:
        """Add the mean update to w."""
        return {"model": state["model"] + sums.means["model"]}
