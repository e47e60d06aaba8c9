"""The task protocol: what every CAD problem gives to training, evaluation and findings.

Legend of shapes: B cases in a batch; N cases; K length of a statistics vector; R bootstrap replicates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcad.shared.config.study import OptimizerConfig
from fedcad.shared.metrics.interface import Statistics, StatisticsFamily

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Batch:
    """Cases side by side.

    Attributes:
        inputs: Named tensors whose first axis is the case: ``image`` float32 (B, 1, rows, columns).
        targets: Named tensors whose first axis is the case, for instance ``label`` int64 (B,).
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """One thing that training minimises.

    Attributes:
        name: Name in logs.
        networks: Names of the networks whose parameters it changes.
        optimizer: The optimizer of these networks.
        losses: Gives one loss for each case, shape (B,), never coupled across cases: privacy builds on it.
        interval: The objective takes a step in every interval-th local step.
    """

    name: str
    networks: tuple[str, ...]
    optimizer: OptimizerConfig
    losses: Callable[[Networks, Batch], Tensor]
    interval: int = 1


@dataclass(frozen=True)
class Findings:
    """What a model says about one case. Investigational; not for clinical use.

    Attributes:
        probabilities: Probability of each named class.
    """

    probabilities: Mapping[str, float]


class Task(Protocol):
    """A CAD problem. Adding one is a file beside this one, entered in the registry."""

    statistics: StatisticsFamily

    def networks(self) -> dict[str, nn.Module]:
        """Build the networks, untrained, in the order of their names; draws from torch's global generator."""
        ...

    def objectives(self) -> tuple[Objective, ...]:
        """Return what training minimises, in order; empty where nothing is trained."""
        ...

    def predict(self, networks: Networks, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs that :meth:`infer` and the statistics start from, first axis the case."""
        ...

    def infer(self, networks: Networks, case: Mapping[str, Tensor]) -> Findings:
        """Return the findings of one case (no case axis)."""
        ...

    def targets(self, labels: Sequence[str]) -> Mapping[str, Tensor]:
        """Return the targets of cases from their entries in the label table, first axis the case.

        Raises:
            DataError: A label is not one of the study's.
        """
        ...

    def collect(
        self, outputs: NDArray[np.float32], targets: Mapping[str, Tensor], weights: NDArray[np.int64]
    ) -> Statistics:
        """Return :attr:`statistics` of cases.

        Args:
            outputs: What :meth:`predict` gave of N cases, first axis the case.
            targets: What :meth:`targets` gave of them.
            weights: Non-negative integer weights, shape (1 + R, N).

        Returns:
            int64, shape (1 + R, K).
        """
        ...
