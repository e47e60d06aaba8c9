"""The parts of a vector of classification statistics, and what must hold between them.

Why: a site's numbers are added to those of others, and nobody sees its cases. What no cases can give must be
refused before it is added: counts that do not add up, or sums that are too large for their cases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.metrics.classification_input import LARGEST_TOTAL_WEIGHT

CALIBRATION_BINS = 15
LOSS_LIMIT = 100.0
"""Largest cross-entropy of a case, in nat."""
UNIT = 2.0**-24
"""What one unit of a fixed-point sum stands for."""


@dataclass(frozen=True)
class Parts:
    """Views of statistics vectors by name, all int64; leading axes as in the vectors.

    Attributes:
        confusion: Shape (..., C, C), true class first.
        scores: Shape (..., C, 2, H).
        bin_cases: Shape (..., 15).
        bin_correct: Shape (..., 15).
        bin_confidence: Shape (..., 15), in units.
        loss: Shape (...), in units.
        brier: Shape (...), in units.
        cases: Shape (...).
    """

    confusion: NDArray[np.int64]
    scores: NDArray[np.int64]
    bin_cases: NDArray[np.int64]
    bin_correct: NDArray[np.int64]
    bin_confidence: NDArray[np.int64]
    loss: NDArray[np.int64]
    brier: NDArray[np.int64]
    cases: NDArray[np.int64]


def contradictions(parts: Parts) -> list[str]:
    """Return the names of parts that do not fit the number of cases or one another; empty where all fit.

    Every part must count the same cases, and sums must not be more than that number of cases can give.

    Args:
        parts: Parts of several vectors, entries 0 or more, each with one leading axis.
    """
    # First, since sums of counts beyond the cases could wrap around and look right.
    wrong = [
        name for name in ("confusion", "scores", "bin_cases") if _exceeds(getattr(parts, name), parts.cases)
    ]
    if (parts.cases > LARGEST_TOTAL_WEIGHT).any():
        wrong.append("cases")
    return wrong or [name for name, holds in _rules(parts).items() if not holds.all()]


def _exceeds(counts: NDArray[np.int64], cases: NDArray[np.int64]) -> bool:
    return bool((counts.reshape(len(cases), -1) > cases[:, None]).any())


def _rules(parts: Parts) -> dict[str, NDArray[np.bool_]]:
    """Return, for each part, whether it counts the cases that the others count."""
    true, hits = parts.confusion.sum(axis=-1), parts.confusion.trace(axis1=-2, axis2=-1)
    negatives, positives = parts.scores[..., 0, :].sum(axis=-1), parts.scores[..., 1, :].sum(axis=-1)
    one = int(1 / UNIT)
    return {
        "confusion": true.sum(axis=-1) == parts.cases,
        "scores": (positives == true) & (negatives == parts.cases[:, None] - true),
        "bin_cases": parts.bin_cases.sum(axis=-1) == parts.cases,
        "bin_correct": (parts.bin_correct <= parts.bin_cases).all(axis=-1)
        & (parts.bin_correct.sum(axis=-1) == hits),
        "bin_confidence": parts.bin_confidence <= parts.bin_cases * one,
        "loss": parts.loss <= parts.cases * (int(LOSS_LIMIT) * one),
        "brier": parts.brier <= parts.cases * (parts.confusion.shape[-1] * one),
    }
