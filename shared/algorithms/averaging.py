"""What the averaging algorithms share: only the model travels, nothing is personal, sites keep nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedAvgConfig, FedOptConfig, FedProxConfig
from fedcad.shared.layout import Layout


class Averaging(ABC):
    """An algorithm that averages the sites' updates; its two halves are what differs."""

    needs_individual_updates = False

    def __init__(self, config: FedAvgConfig | FedProxConfig | FedOptConfig) -> None:
        """Keep the weighting."""
        self._weighting = config.weighting

    @abstractmethod
    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Do the site's half of a round."""

    @abstractmethod
    def apply(self, state: State, sums: Sums) -> State:
        """Do the coordinator's half of a round."""

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
        """Send the global parameters."""
        return {"model": state["model"]}

    def init_site(self, layout: Layout) -> State:
        """Keep nothing between rounds."""
        del layout
        return {}
