"""ROC curves from score histograms: exactly mergeable, because histograms are counts.

Why: the area under the ROC curve of a union of sites cannot be had from the sites' areas, but it can be had
from the sum of their histograms. The price is that scores in one bin count as tied.
"""

import numpy as np
from numpy.typing import NDArray


def auroc(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return areas under ROC curves from histograms of scores.

    The area is the probability that a positive case scores higher than a negative one, ties counting one
    half, which is the trapezoidal area under the binned curve.

    Args:
        positives: Cases of the class in each bin, lowest scores first, shape (..., bins).
        negatives: All other cases in each bin, same shape.

    Returns:
        float64, shape (...); nan where there are no positives or no negatives. Free of rounding up to the
        last division while 2 · positives · negatives is below 2^53.

    References:
        Hanley, McNeil (1982), Radiology 143(1), 29-36; Fawcett (2006), Pattern Recognition Letters 27(8),
        861-874, section 7.
    """
    below = np.cumsum(negatives, axis=-1) - negatives
    doubled = np.sum(positives.astype(np.float64) * (2 * below + negatives), axis=-1)
    pairs = positives.sum(axis=-1).astype(np.float64) * negatives.sum(axis=-1)
    area = np.full(pairs.shape, np.nan)
    np.divide(doubled, 2 * pairs, out=area, where=pairs > 0)
    return area


def roc_points(
    positives: NDArray[np.int64], negatives: NDArray[np.int64], *, limit: int = 200
) -> tuple[list[float], list[float]]:
    """Return the points of one ROC curve from (0, 0) to (1, 1), for plots.

    Args:
        positives: Cases of the class in each bin, lowest scores first, shape (bins,); at least one case.
        negatives: All other cases in each bin, same shape; at least one case.
        limit: Most points returned, at least 2; more are thinned evenly, both ends kept.

    Returns:
        False and true positive fractions, of equal length, neither ever decreasing.
    """
    occupied = (positives + negatives) > 0
    true = np.concatenate([[0], np.cumsum(positives[occupied][::-1])])
    false = np.concatenate([[0], np.cumsum(negatives[occupied][::-1])])
    kept = np.unique(np.linspace(0, true.size - 1, min(limit, true.size)).round().astype(np.intp))
    return (false[kept] / false[-1]).tolist(), (true[kept] / true[-1]).tolist()
