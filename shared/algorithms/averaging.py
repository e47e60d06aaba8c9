"""What the averaging algorithms share: only the model travels, and sites keep nothing of the algorithm."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import FedAvgConfig, FedBNConfig, FedOptConfig, FedProxConfig
from fedcad.shared.layout import Layout


class Averaging(ABC):
    """An algorithm that averages the sites' updates; its two halves are what differs."""

    needs_individual_updates = False

    def __init__(self, config: FedAvgConfig | FedProxConfig | FedOptConfig | FedBNConfig) -> None:
        """Keep the weighting."""
        self._weighting = config.weighting

    @abstractmethod
    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Do the site's half of a round."""

    @abstractmethod
    def apply(self, state: State, sums: Sums) -> State:
        """Do the coordinator's half of a round."""

    def personal(self, layout: Layout) -> frozenset[str]:
        """Nothing is personal, unless the algorithm says so."""
        del layout
        return frozenset()

    def weights(self, cases: int) -> Mapping[str, int]:
        """Return the number of cases, or 1, for the model."""
        return {"model": cases if self._weighting == "cases" else 1}

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
