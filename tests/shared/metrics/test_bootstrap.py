"""Poisson bootstrap by patient: pairing, determinism, coverage."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, poisson

from fedcad.shared.metrics.bootstrap import Estimate, estimate, interval, paired_difference, patient_weights

PATIENTS = st.lists(st.integers(-5, 5), max_size=20).map(lambda ids: np.array(ids, dtype=np.int64))


def weights_of(patients: np.ndarray, replicates: int = 30, seed: int = 7, site: str = "north") -> np.ndarray:
    return patient_weights(patients, replicates=replicates, seed=seed, site=site)


@given(PATIENTS)
def test_first_row_is_ones_and_patients_are_never_split(patients: np.ndarray) -> None:
    weights = weights_of(patients)
    assert weights.shape == (31, patients.size)
    assert weights.dtype == np.int64
    assert (weights[0] == 1).all()
    assert (weights >= 0).all()
    for patient in np.unique(patients):
        own = weights[:, patients == patient]
        assert (own == own[:, :1]).all()


@given(PATIENTS, st.randoms())
def test_order_of_cases_moves_no_weight(patients: np.ndarray, shuffler: random.Random) -> None:
    order = list(range(patients.size))
    shuffler.shuffle(order)
    np.testing.assert_array_equal(weights_of(patients)[:, order], weights_of(patients[order]))


def test_more_replicates_keep_the_first_ones() -> None:
    patients = np.arange(40) // 2
    np.testing.assert_array_equal(weights_of(patients, 60)[:31], weights_of(patients, 30))


def test_same_for_the_same_seed_and_site_only() -> None:
    patients = np.arange(40)
    np.testing.assert_array_equal(weights_of(patients), weights_of(patients))
    assert (weights_of(patients) != weights_of(patients, site="south")).any()
    assert (weights_of(patients) != weights_of(patients, seed=8)).any()


def test_draws_are_poisson_with_mean_one_and_independent_between_patients() -> None:
    draws = weights_of(np.arange(200), replicates=500)[1:]
    observed = np.bincount(np.minimum(draws.ravel(), 5), minlength=6)
    expected = draws.size * np.append(poisson.pmf(range(5), 1.0), poisson.sf(4, 1.0))
    assert ((observed - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 5)
    correlations = np.corrcoef(draws.T)[np.triu_indices(200, 1)]
    assert abs(correlations.mean()) < 4 / np.sqrt(500 * correlations.size)


@pytest.mark.parametrize("patients", [np.zeros((2, 2), dtype=np.int64), np.zeros(3)])
def test_patients_that_are_no_integer_vector_are_refused(patients: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one integer for each case"):
        weights_of(patients)


def test_negative_replicates_are_refused() -> None:
    with pytest.raises(ValueError, match="replicates is -1"):
        weights_of(np.arange(3), replicates=-1)


def test_interval_by_hand() -> None:
    # 0, 1, ..., 40: the 2.5 % quantile lies at 1, the 97.5 % quantile at 39.
    assert interval(np.arange(41.0)) == pytest.approx((1.0, 39.0))
    assert interval(np.arange(41.0), level=0.5) == (10.0, 30.0)


def test_undefined_replicates_are_left_out_up_to_a_fifth() -> None:
    values = np.append(np.arange(41.0), np.full(10, np.nan))
    assert interval(values) == pytest.approx((1.0, 39.0))
    assert interval(np.append(values, np.nan)) is None


@pytest.mark.parametrize(("size", "defined"), [(0, False), (19, False), (20, True)])
def test_fewer_than_twenty_replicates_give_no_interval(size: int, defined: bool) -> None:
    assert (interval(np.zeros(size)) is not None) == defined


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, float("nan")])
def test_impossible_levels_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(np.zeros(30), level=level)


def test_interval_refuses_tables() -> None:
    with pytest.raises(ValueError, match="replicates alone"):
        interval(np.zeros((2, 30)))


def test_estimate_separates_the_figure_from_its_replicates() -> None:
    whole = estimate(np.append(99.0, np.arange(41.0)))
    assert whole.value == 99.0
    assert whole.interval == pytest.approx((1.0, 39.0))
    assert estimate(np.append(np.nan, np.arange(41.0))) == Estimate(None, None)
    assert estimate(np.array([0.5])) == Estimate(0.5, None)
    with pytest.raises(ValueError, match="the metric and its replicates"):
        estimate(np.array([]))


def test_paired_difference_cancels_what_is_common() -> None:
    common = np.random.default_rng(0).normal(size=201)
    difference = paired_difference(common + 0.25, common)
    assert difference.value == pytest.approx(0.25)
    assert difference.interval == pytest.approx((0.25, 0.25))


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_paired_difference_changes_sign_with_its_sides(seed: int) -> None:
    first, second = np.random.default_rng(seed).normal(size=(2, 101))
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.value == -back.value
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_paired_difference_is_undefined_where_one_side_is() -> None:
    values = np.append(np.nan, np.zeros(30))
    assert paired_difference(values, np.zeros(31)) == Estimate(None, None)
    with pytest.raises(ValueError, match="must be paired"):
        paired_difference(np.zeros(31), np.zeros(30))


def test_coverage_of_a_mean_by_patient_and_undercoverage_by_case() -> None:
    """95 % intervals of a mean over patients with 4 nearly equal cases each cover about 95 % of the time."""
    generator = np.random.default_rng(11)
    patients = np.repeat(np.arange(60), 4)
    covered = {"patient": 0, "case": 0}
    trials = 200
    for trial in range(trials):
        values = np.repeat(generator.normal(size=60), 4) + 0.1 * generator.normal(size=240)
        for unit, numbers in (("patient", patients), ("case", np.arange(240))):
            weights = patient_weights(numbers, replicates=200, seed=trial, site="north")[1:]
            lower, upper = interval(weights @ values / weights.sum(axis=1))
            covered[unit] += lower <= 0.0 <= upper
    # Binomial(200, 0.95) has a deviation of 1.5 %; small samples cost the percentile interval 1 to 2 %.
    assert 0.89 <= covered["patient"] / trials <= 0.99
    assert covered["case"] / trials < 0.8
