import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.errors import DataError
from fedcad.simulations.allocation import allocate_by_dirichlet, allocate_by_quantity, allocate_evenly

CLASSES = st.lists(st.integers(0, 3), min_size=1, max_size=80).map(np.array)
SITES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31)


@given(CLASSES, SITES, SEEDS)
@settings(deadline=None)
def test_even_sites_differ_by_one_patient_at_most_also_in_each_class(
    classes: np.ndarray, sites: int, seed: int
) -> None:
    allocation = allocate_evenly(classes, sites=sites, seed=seed)
    assert np.ptp(np.bincount(allocation, minlength=sites)) <= 1
    for label in np.unique(classes):
        assert np.ptp(np.bincount(allocation[classes == label], minlength=sites)) <= 1


@given(CLASSES, SITES, st.floats(0.05, 1.0), SEEDS)
@settings(deadline=None)
def test_quantity_skew_has_the_promised_sizes(
    classes: np.ndarray, sites: int, ratio: float, seed: int
) -> None:
    allocation = allocate_by_quantity(classes, sites=sites, ratio=ratio, seed=seed)
    sizes = np.bincount(allocation, minlength=sites)
    exact = ratio ** np.arange(sites) / np.sum(ratio ** np.arange(sites)) * len(classes)
    assert sizes.sum() == len(classes)
    assert np.all(np.abs(sizes - exact) < 1.0 + 1e-9)


def test_quantity_skew_by_hand() -> None:
    # Shares 4/7, 2/7, 1/7 of 14 patients.
    allocation = allocate_by_quantity(np.array([0] * 7 + [1] * 7), sites=3, ratio=0.5, seed=3)
    assert np.bincount(allocation).tolist() == [8, 4, 2]
    assert np.bincount(allocation[:7], minlength=3).tolist() == [4, 2, 1]


def test_seeds_decide() -> None:
    classes = np.zeros(40, dtype=np.int64)
    first = allocate_evenly(classes, sites=4, seed=1)
    assert np.array_equal(first, allocate_evenly(classes, sites=4, seed=1))
    assert not np.array_equal(first, allocate_evenly(classes, sites=4, seed=2))


@given(st.integers(2, 5), st.floats(0.05, 100.0), SEEDS)
@settings(max_examples=40, deadline=None)
def test_dirichlet_gives_every_site_enough_or_says_why_not(sites: int, alpha: float, seed: int) -> None:
    classes = np.repeat([0, 1, 2], 30)
    try:
        allocation = allocate_by_dirichlet(classes, sites=sites, alpha=alpha, seed=seed, minimum_patients=3)
    except DataError as error:
        assert "alpha" in str(error)
        return
    assert np.bincount(allocation, minlength=sites).min() >= 3
    assert len(allocation) == 90


def _skew(alpha: float) -> float:
    """Mean over seeds and sites of the distance between a site's class shares and the whole's."""
    classes = np.repeat([0, 1, 2], 100)
    distances = []
    for seed in range(20):
        allocation = allocate_by_dirichlet(classes, sites=4, alpha=alpha, seed=seed, minimum_patients=1)
        for site in range(4):
            shares = np.bincount(classes[allocation == site], minlength=3) / np.sum(allocation == site)
            distances.append(np.abs(shares - 1 / 3).sum() / 2)
    return float(np.mean(distances))


def test_label_skew_grows_as_alpha_falls() -> None:
    skews = [_skew(alpha) for alpha in (1000.0, 10.0, 1.0, 0.1)]
    assert skews == sorted(skews)
    assert skews[0] < 0.05
    assert skews[-1] > 0.4


def test_huge_and_tiny_alpha_are_fine() -> None:
    classes = np.repeat([0, 1], 50)
    even = allocate_by_dirichlet(classes, sites=5, alpha=1e6, seed=1, minimum_patients=20)
    assert np.bincount(even).tolist() == [20] * 5
    lone = allocate_by_dirichlet(classes, sites=2, alpha=1e-9, seed=1, minimum_patients=50)
    assert np.bincount(lone).tolist() == [50, 50]


def test_too_few_patients_are_refused_at_once() -> None:
    with pytest.raises(DataError, match=r"5 sites of at least 3 patients need 15; there are 10"):
        allocate_by_dirichlet(np.zeros(10, dtype=np.int64), sites=5, alpha=1.0, seed=1, minimum_patients=3)


def test_hopeless_draws_are_refused_after_a_limit() -> None:
    with pytest.raises(DataError, match="no draw of 1000"):
        allocate_by_dirichlet(
            np.zeros(100, dtype=np.int64), sites=10, alpha=1e-6, seed=1, minimum_patients=10
        )
