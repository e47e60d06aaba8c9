"""Confidence intervals that can be had without gathering cases: the Poisson bootstrap by patient.

Why: the ordinary bootstrap draws cases from the whole test set, so that somebody must hold it. With
Poisson(1) weights every patient is drawn independently of all others; a site draws for its own patients,
and replicate b of the union is the sum of the sites' replicates b. Patients are drawn, not cases, because
two images of one patient are not independent.

References:
    Hanley, MacGibbon (2006), Computer Methods and Programs in Biomedicine 83(1), 57-62 (Poisson weights in
    place of multinomial ones); Chamandy, Muralidharan, Najmi, Naidu (2012), Estimating uncertainty for
    massive data streams, Google technical report (merging replicates of distributed data).

Legend: N cases, R replicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.seeds import numpy_generator

LEAST_DEFINED = 20
LEAST_FRACTION_DEFINED = 0.8


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: The figure on the cases themselves; None where it is undefined.
        interval: Lower and upper bound; None where too few replicates define it.
    """

    value: float | None
    interval: tuple[float, float] | None


def patient_weights(
    patients: NDArray[np.int64], *, replicates: int, seed: int, site: str
) -> NDArray[np.int64]:
    """Return the weight of every case in the test set itself and in each bootstrap replicate.

    Args:
        patients: Number of the patient of each of N cases, in any numbering local to the site.
        replicates: R, at least 0.
        seed: The study's seed.
        site: Name of the site.

    Returns:
        int64, shape (1 + R, N). Row 0 is all ones; in row b each distinct patient has one Poisson(1) draw,
        which all of its cases share.

    Guarantees:
        The same for every model tested at the site, so that comparisons are paired; unmoved by the order of
        the cases; the first rows stay when more replicates are asked for.

    Raises:
        ValueError: `patients` is not a vector of integers, or `replicates` is negative.
    """
    if patients.ndim != 1 or not np.issubdtype(patients.dtype, np.integer):
        raise ValueError(
            f"patients is {patients.dtype} {patients.shape}; give one integer for each case, shape (N,)"
        )
    if replicates < 0:
        raise ValueError(f"replicates is {replicates}; it must be 0 or more")
    distinct, place = np.unique(patients, return_inverse=True)
    generator = numpy_generator(seed, "bootstrap", site)
    draws = generator.poisson(1.0, size=(replicates, distinct.size)).astype(np.int64)
    return np.concatenate([np.ones((1, patients.size), dtype=np.int64), draws[:, place]])


def interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float] | None:
    """Return the percentile interval of a metric's replicates.

    Args:
        values: The metric in each replicate, shape (R,); nan where undefined, and then left out.
        level: Coverage aimed at, between 0 and 1.

    Returns:
        Lower and upper bound, or None where fewer than 20 replicates or less than 80 % of them are defined,
        since what is left would be a biased choice.

    Raises:
        ValueError: `values` is not a vector, or `level` is not between 0 and 1.

    References:
        Efron, Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.
    """
    if values.ndim != 1:
        raise ValueError(f"values has shape {values.shape}; give the replicates alone, shape (R,)")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; it must be between 0 and 1, for instance 0.95")
    defined = values[~np.isnan(values)]
    if defined.size < max(LEAST_DEFINED, LEAST_FRACTION_DEFINED * values.size):
        return None
    tail = (1.0 - level) / 2.0
    lower, upper = np.quantile(defined, [tail, 1.0 - tail])
    return float(lower), float(upper)


def estimate(values: NDArray[np.float64], *, level: float = 0.95) -> Estimate:
    """Return a metric with its interval.

    Args:
        values: The metric on the cases themselves, then in each replicate, shape (1 + R,), as
            ``StatisticsFamily.primary_values`` gives it; nan where undefined.
        level: Coverage aimed at, between 0 and 1.

    Raises:
        ValueError: `values` is not a vector with at least one entry, or `level` is not between 0 and 1.
    """
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values has shape {values.shape}; give the metric and its replicates, (1 + R,)")
    bounds = interval(values[1:], level=level)
    if np.isnan(values[0]):
        return Estimate(value=None, interval=None)
    return Estimate(value=float(values[0]), interval=bounds)


def paired_difference(
    values: NDArray[np.float64], reference: NDArray[np.float64], *, level: float = 0.95
) -> Estimate:
    """Return `values` minus `reference` with its interval, replicate by replicate.

    Both must come from the same cases and the same weights: then what is common to both models, above all
    which patients are hard, cancels.

    Args:
        values: One model's metric on the cases and in each replicate, shape (1 + R,); nan where undefined.
        reference: The other model's, same shape.
        level: Coverage aimed at, between 0 and 1.

    Raises:
        ValueError: The shapes differ or are not (1 + R,), or `level` is not between 0 and 1.
    """
    if values.shape != reference.shape:
        raise ValueError(f"values has shape {values.shape}, reference {reference.shape}; they must be paired")
    return estimate(values - reference, level=level)
