"""AUROC from histograms against hand arithmetic and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from fedcad.shared.metrics.roc import auroc, roc_points

HISTOGRAMS = arrays(np.int64, (2, 12), elements=st.integers(0, 9))


def test_by_hand_with_a_tie() -> None:
    # Positives in bins 1, 2, 2; negatives in 0, 1: pairs won 5, tied 1, of 6.
    area = auroc(np.array([0, 1, 2]), np.array([1, 1, 0]))
    assert area == pytest.approx(5.5 / 6, abs=0)


@given(HISTOGRAMS)
def test_equals_scikit_learn_on_bin_numbers(histograms: np.ndarray) -> None:
    positives, negatives = histograms
    area = auroc(positives, negatives)
    if positives.sum() == 0 or negatives.sum() == 0:
        assert np.isnan(area)
        return
    bins = np.arange(positives.size)
    scores = np.concatenate([np.repeat(bins, positives), np.repeat(bins, negatives)])
    truth = np.repeat([1, 0], [positives.sum(), negatives.sum()])
    assert area == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@given(HISTOGRAMS)
def test_swapping_the_classes_mirrors_the_area(histograms: np.ndarray) -> None:
    area, mirrored = auroc(histograms[0], histograms[1]), auroc(histograms[1], histograms[0])
    np.testing.assert_allclose(area + mirrored, 1.0 if not np.isnan(area) else np.nan)


def test_leading_axes_are_independent() -> None:
    generator = np.random.default_rng(3)
    positives, negatives = generator.integers(0, 9, (2, 4, 5, 12))
    together = auroc(positives, negatives)
    assert together.shape == (4, 5)
    assert together[2, 3] == auroc(positives[2, 3], negatives[2, 3])


@given(HISTOGRAMS)
def test_trapezoids_under_all_points_are_the_area(histograms: np.ndarray) -> None:
    positives, negatives = histograms + np.eye(2, 12, dtype=np.int64)
    fpr, tpr = roc_points(positives, negatives)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(float(auroc(positives, negatives)), abs=1e-12)


def test_points_are_thinned_monotone_and_plain() -> None:
    generator = np.random.default_rng(5)
    fpr, tpr = roc_points(generator.integers(1, 9, 4096), generator.integers(1, 9, 4096))
    assert len(fpr) == len(tpr) == 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(tpr) >= 0)
    assert type(fpr[1]) is float
