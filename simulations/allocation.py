"""Which site each patient goes to, for the partitions that are drawn: numbers in, numbers out."""

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.errors import DataError
from fedcad.shared.seeds import numpy_generator

_TRIES = 1000

Sites = NDArray[np.int64]


def allocate_evenly(classes: NDArray[np.int64], *, sites: int, seed: int) -> Sites:
    """Deal patients evenly at random, stratified by class.

    Guarantees:
        The sizes of two sites differ by at most 1 patient, and so do their counts of each class.

    Args:
        classes: Class of each patient, shape (patients,).
        sites: Number of sites.
        seed: Seed of the study.

    Returns:
        Site of each patient, shape (patients,).
    """
    order = _stratified_order(classes, seed=seed, purpose="partition-even")
    allocation = np.empty(len(classes), dtype=np.int64)
    allocation[order] = np.arange(len(classes)) % sites
    return allocation


def allocate_by_quantity(classes: NDArray[np.int64], *, sites: int, ratio: float, seed: int) -> Sites:
    """Make sites of unequal size, each with about the class shares of the whole.

    Guarantees:
        Site k has ``ratio^k / Σ ratio^j`` of the patients, rounded by the largest remainder.

    Args:
        classes: Class of each patient, shape (patients,).
        sites: Number of sites.
        ratio: Each site's size relative to the one before it, 0 < ratio <= 1.
        seed: Seed of the study.

    Returns:
        Site of each patient, shape (patients,).
    """
    shares = np.power(ratio, np.arange(sites, dtype=np.float64))
    sizes = _largest_remainder(shares / shares.sum(), len(classes))
    # Site k takes its places at times (j + 1/2) / size, which spreads each site evenly over the classes.
    times = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes if size])
    owners = np.repeat(np.arange(sites), sizes)
    order = _stratified_order(classes, seed=seed, purpose="partition-quantity")
    allocation = np.empty(len(classes), dtype=np.int64)
    allocation[order] = owners[np.argsort(times, kind="stable")]
    return allocation


def allocate_by_dirichlet(
    classes: NDArray[np.int64], *, sites: int, alpha: float, seed: int, minimum_patients: int
) -> Sites:
    """Spread each class over the sites by its own draw from a symmetric Dirichlet distribution.

    Drawn again, from the next seed, until every site has enough patients.

    Args:
        classes: Class of each patient, shape (patients,).
        sites: Number of sites.
        alpha: Concentration: near 0 each class lies at one site, large is even.
        seed: Seed of the study.
        minimum_patients: Patients that each site needs.

    Returns:
        Site of each patient, shape (patients,).

    Raises:
        DataError: There are too few patients, or no draw of 1000 gave every site enough.

    References:
        Hsu et al. (2019), arXiv:1909.06335, section 3; per class as in Yurochkin et al. (2019),
        arXiv:1905.12022, section 4.
    """
    if sites * minimum_patients > len(classes):
        raise DataError(
            f"{sites} sites of at least {minimum_patients} patients need {sites * minimum_patients}; "
            f"there are {len(classes)} patients. Lower partition.sites or minimum_patients"
        )
    for attempt in range(_TRIES):
        allocation = _draw_dirichlet(classes, sites, alpha, numpy_generator(seed, "dirichlet", attempt))
        if np.bincount(allocation, minlength=sites).min() >= minimum_patients:
            return allocation
    raise DataError(
        f"no draw of {_TRIES} with alpha {alpha:g} gave each of {sites} sites at least {minimum_patients} of "
        f"{len(classes)} patients. Raise partition.alpha, or lower partition.sites or minimum_patients"
    )


def _draw_dirichlet(
    classes: NDArray[np.int64], sites: int, alpha: float, generator: np.random.Generator
) -> Sites:
    allocation = np.empty(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        counts = _largest_remainder(generator.dirichlet(np.full(sites, alpha)), len(members))
        allocation[members] = np.repeat(np.arange(sites), counts)
    return allocation


def _largest_remainder(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round shares to whole numbers that add up to the total (Hamilton's method)."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - counts), kind="stable")
    # Rounding errors of the shares may leave the floors one too many or too few altogether.
    missing = total - int(counts.sum())
    counts[by_remainder[:missing]] += 1
    return counts


def _stratified_order(classes: NDArray[np.int64], *, seed: int, purpose: str) -> NDArray[np.int64]:
    """Return the patients class by class, shuffled inside each class."""
    shuffled = numpy_generator(seed, purpose).permutation(len(classes))
    return shuffled[np.argsort(classes[shuffled], kind="stable")]
