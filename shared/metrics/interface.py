"""Metrics that merge: a site sends integer counts, the coordinator adds them and divides once.

Why: averages of averages are wrong, and floating sums depend on the order. Here every statistic is an int64
(counts, or fixed point), so that the sum over sites equals the statistic of the union to the last bit,
whatever the order.

Legend: N cases, K statistics, R bootstrap replicates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Statistics = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """One figure with its denominator, or the reason why it has none.

    Attributes:
        value: The figure; None where it is undefined.
        denominator: What it rests on, in words, for instance ``41 of 52 covid19 cases``.
        undefined: Why there is no value, else empty.
    """

    value: float | None
    denominator: str
    undefined: str = ""


class StatisticsFamily(Protocol):
    """The statistics of one family of tasks and the metrics that follow from them."""

    primary: str
    """Name of the metric by which models are compared."""
    size: int
    """K, the length of one statistics vector."""

    def collect(
        self, outputs: NDArray[np.float32], targets: NDArray[np.int64], weights: NDArray[np.int64]
    ) -> Statistics:
        """Return statistics of cases under each row of weights.

        Args:
            outputs: Model outputs of N cases, first axis the case.
            targets: Targets of N cases.
            weights: Non-negative integer weights, shape (1 + R, N); row 0 is all ones.

        Returns:
            int64, shape (1 + R, K). Sums over sites are the statistics of the union.
        """
        ...

    def cases(self, statistics: Statistics) -> int:
        """Return the number of cases of one vector, shape (K,)."""
        ...

    def check(self, statistics: Statistics) -> None:
        """Refuse vectors that no cases can give, however they were weighted.

        Args:
            statistics: Shape (1 + R, K).

        Guarantees:
            Where each of several vectors passes, all metrics of each, and of their sum, are finite
            or undefined.

        Raises:
            InvalidUpdate: Not such vectors, or their parts contradict one another.
        """
        ...

    def metrics(self, statistics: Statistics) -> Mapping[str, Metric]:
        """Return all metrics of one vector, shape (K,)."""
        ...

    def primary_values(self, statistics: Statistics) -> NDArray[np.float64]:
        """Return the primary metric of each vector at once; nan where it is undefined.

        Args:
            statistics: Shape (1 + R, K).

        Returns:
            float64, shape (1 + R,), each equal to what :meth:`metrics` says of that vector.
        """
        ...

    def loss(self, statistics: Statistics) -> float:
        """Return the mean loss of one vector, by which rounds are selected; infinity without cases."""
        ...

    def curves(self, statistics: Statistics) -> Mapping[str, Any]:
        """Return plain data for plots of one vector, shape (K,): ROC, calibration, confusion."""
        ...
