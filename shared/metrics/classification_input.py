"""What may enter the statistics of classification: probabilities, known classes, counting weights.

Why apart: one NaN in an argmax or a histogram becomes a plausible count, which no later check can see.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.errors import InvalidUpdate

LARGEST_TOTAL_WEIGHT = 2**29
"""Bound on the sum of one row of weights: sums of confidence in 2⁻²⁴ stay below 2^53, of loss below 2^63."""
SUM_TOLERANCE = 1e-3
"""How far the probabilities of a case may be from summing to 1: float32 rounding, ensembles."""


def check_cases(outputs: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any], classes: int) -> None:
    """Refuse what is not the probabilities, targets and weights of N cases.

    Args:
        outputs: To be floating, shape (N, classes), rows that are distributions.
        targets: To be integer, shape (N,), 0 to classes - 1.
        weights: To be integer, shape (1 + R, N), 0 or more.
        classes: Number of classes.

    Raises:
        InvalidUpdate: Outputs are not probabilities.
        ValueError: Shapes or types do not fit, a target is not a class, a weight is negative or the weights
            of a row are too large to be summed exactly.
    """
    _check_shapes(outputs, targets, weights, classes)
    _check_probabilities(outputs)
    if targets.size and (targets.min() < 0 or targets.max() >= classes):
        raise ValueError(f"targets go from {targets.min()} to {targets.max()}; expected 0 to {classes - 1}")
    if weights.size and weights.min() < 0:
        raise ValueError(f"weights go down to {weights.min()}; they count cases and must be 0 or more")
    # In float64, since a sum in int64 could wrap around and look small.
    if weights.size and weights.sum(axis=1, dtype=np.float64).max() > LARGEST_TOTAL_WEIGHT:
        raise ValueError(f"a row of weights sums to more than {LARGEST_TOTAL_WEIGHT}; collect in parts")


def _check_shapes(outputs: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any], classes: int) -> None:
    """Refuse wrong shapes and types."""
    if outputs.ndim != 2 or outputs.shape[1] != classes or not np.issubdtype(outputs.dtype, np.floating):
        raise ValueError(
            f"outputs are {outputs.dtype} {outputs.shape}; expected floating (N, {classes}): probabilities"
        )
    cases = outputs.shape[0]
    if targets.shape != (cases,) or not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"targets are {targets.dtype} {targets.shape}; expected integer ({cases},)")
    if weights.ndim != 2 or weights.shape[1] != cases or not np.issubdtype(weights.dtype, np.integer):
        raise ValueError(f"weights are {weights.dtype} {weights.shape}; expected integer (1 + R, {cases})")


def _check_probabilities(outputs: NDArray[Any]) -> None:
    """Refuse rows that are no distributions, saying how many."""
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise InvalidUpdate(
            f"outputs of {np.count_nonzero(~finite)} of {len(outputs)} cases are NaN or infinite; expected "
            "probabilities. The model has diverged: lower the learning rate"
        )
    within = ((outputs >= -SUM_TOLERANCE) & (outputs <= 1 + SUM_TOLERANCE)).all(axis=1)
    distributions = within & (np.abs(outputs.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE)
    if not distributions.all():
        raise InvalidUpdate(
            f"outputs of {np.count_nonzero(~distributions)} of {len(outputs)} cases are not probabilities "
            "summing to 1; give the softmax, not logits or log-probabilities"
        )
