"""Statistics of classification: hand arithmetic, scikit-learn, merging, hostile input."""

import json
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.metrics.classification import UNIT, ClassificationStatistics

CLASSES = ("normal", "pneumonia", "covid19")
FAMILY = ClassificationStatistics(CLASSES, 256)
PAIR = ClassificationStatistics(("normal", "covid19"), 64)


def ones(cases: int) -> np.ndarray:
    return np.ones((1, cases), dtype=np.int64)


def draw_cases(seed: int, cases: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Confident probabilities that are right more often than not."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, cases)
    logits = generator.normal(scale=2.0, size=(cases, classes)) + 2.0 * np.eye(classes)[targets]
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), targets


def vector_of(family: ClassificationStatistics, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return family.collect(outputs, targets, ones(len(targets)))[0]


@st.composite
def weighted_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cases of any confidence, also exactly 0 and 1, with weights of 3 rows."""
    cases = draw(st.integers(0, 25))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    outputs = generator.dirichlet([draw(st.sampled_from([0.02, 0.3, 3.0]))] * 3, cases).astype(np.float32)
    targets = generator.integers(0, 3, cases)
    return outputs, targets, generator.integers(0, 4, (3, cases))


HAND_OUTPUTS = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.125, 0.875]], dtype=np.float32)
HAND_TARGETS = np.array([0, 0, 1, 1])


def test_two_by_two_by_hand() -> None:
    # Called: normal, covid19, normal (first of equals), covid19. Scores of covid19: 0.25 0.75 | 0.5 0.875.
    metrics = PAIR.metrics(vector_of(PAIR, HAND_OUTPUTS, HAND_TARGETS))
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(
        {
            "accuracy": 2 / 4,
            "balanced_accuracy": 0.5,
            "macro_auroc": 3 / 4,
            "auroc_normal": 3 / 4,
            "auroc_covid19": 3 / 4,
            "sensitivity_normal": 1 / 2,
            "sensitivity_covid19": 1 / 2,
            "ppv_normal": 1 / 2,
            "ppv_covid19": 1 / 2,
            "specificity_normal": 1 / 2,
            "specificity_covid19": 1 / 2,
            "brier": 2 * (0.25**2 + 0.75**2 + 0.5**2 + 0.125**2) / 4,
            # Bins of 1/15: 0.5 in bin 7 (correct 0 of 1), 0.75 twice in bin 11 (1 of 2), 0.875 in bin 13.
            "ece": (abs(0 - 0.5) + abs(1 - 1.5) + abs(1 - 0.875)) / 4,
            "loss": -math.log(0.75 * 0.25 * 0.5 * 0.875) / 4,
        },
        abs=1e-7,
    )
    assert metrics["accuracy"].denominator == "2 of 4 cases"
    assert metrics["sensitivity_covid19"].denominator == "1 of 2 covid19 cases"
    assert metrics["ppv_covid19"].denominator == "1 of 2 cases called covid19"
    assert metrics["specificity_covid19"].denominator == "1 of 2 cases not covid19"
    assert metrics["macro_auroc"].denominator == "2 covid19 cases against 2 normal cases"
    assert metrics["auroc_covid19"].denominator == "2 covid19 cases against 2 others"
    assert metrics["brier"].denominator == "mean over 4 cases"
    assert all(metric.undefined == "" for metric in metrics.values())


def test_layout_is_the_documented_one() -> None:
    outputs, targets = np.array([[0.25, 0.75]], dtype=np.float32), np.array([0])
    family = ClassificationStatistics(("normal", "covid19"), 4)
    vector = vector_of(family, outputs, targets).tolist()
    assert vector[:4] == [0, 1, 0, 0]
    # Log-odds of -1.1 and 1.1 lie in bins 1 (-6 to 0) and 2 (0 to 6); the case is normal, not covid19.
    assert vector[4:20] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert vector[20:35] == [0] * 11 + [1] + [0] * 3
    assert vector[35:50] == [0] * 15
    assert vector[50:65] == [0] * 11 + [3 * 2**22] + [0] * 3
    assert vector[65:] == [round(math.log(4) * 2**24), 2 * 9 * 2**20, 1]


def test_equals_scikit_learn() -> None:
    outputs, targets = draw_cases(1, 400)
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, targets))
    called = outputs.argmax(axis=1)
    exact = outputs.astype(np.float64) / outputs.sum(axis=1, keepdims=True, dtype=np.float64)
    assert metrics["accuracy"].value == (called == targets).mean()
    assert metrics["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(targets, called))
    assert metrics["loss"].value == pytest.approx(log_loss(targets, exact), abs=1e-6)
    onehot = np.eye(3)[targets]
    brier = sum(brier_score_loss(onehot[:, c], exact[:, c]) for c in range(3))
    assert metrics["brier"].value == pytest.approx(brier, abs=1e-6)
    recall = recall_score(targets, called, average=None)
    precision = precision_score(targets, called, average=None)
    for index, name in enumerate(CLASSES):
        assert metrics[f"sensitivity_{name}"].value == pytest.approx(recall[index])
        assert metrics[f"ppv_{name}"].value == pytest.approx(precision[index])
        specificity = recall_score(targets != index, called != index)
        assert metrics[f"specificity_{name}"].value == pytest.approx(specificity)
        area = roc_auc_score(targets == index, outputs[:, index])
        assert metrics[f"auroc_{name}"].value == pytest.approx(area, abs=2e-3)
    macro = roc_auc_score(targets, exact, multi_class="ovr", average="macro")
    assert metrics["macro_auroc"].value == pytest.approx(macro, abs=2e-3)


def test_auroc_is_exact_when_scores_fall_into_distinct_bins() -> None:
    generator = np.random.default_rng(2)
    # Log-odds at the centres of 200 different ones of 256 bins between -12 and 12.
    log_odds = (generator.permutation(256)[:200] + 0.5) * 24 / 256 - 12
    score = 1 / (1 + np.exp(-log_odds))
    targets = generator.integers(0, 2, 200)
    outputs = np.stack([1 - score, score], axis=1).astype(np.float32)
    family = ClassificationStatistics(("a", "b"), 256)
    metrics = family.metrics(vector_of(family, outputs, targets))
    assert metrics["macro_auroc"].value == pytest.approx(roc_auc_score(targets, score), abs=1e-12)


@given(st.integers(0, 2**32), st.integers(2, 300))
def test_two_classes_have_one_auroc(seed: int, bins: int) -> None:
    outputs, targets = draw_cases(seed, 60, classes=2)
    family = ClassificationStatistics(("a", "b"), bins)
    metrics = family.metrics(vector_of(family, outputs, targets))
    assert metrics["macro_auroc"].value == metrics["auroc_a"].value == metrics["auroc_b"].value


def test_two_classes_have_one_auroc_also_at_the_border_of_a_bin() -> None:
    # Log-odds of 0 open a bin; seen from the other class they must close the one below, or ties would differ.
    outputs = np.array([[0.5, 0.5], [0.49, 0.51]], dtype=np.float32)
    metrics = PAIR.metrics(vector_of(PAIR, outputs, np.array([1, 0])))
    assert metrics["auroc_normal"].value == metrics["auroc_covid19"].value == 0.5


def test_expected_calibration_error_against_a_plain_loop() -> None:
    outputs, targets = draw_cases(4, 300)
    confidence, correct = outputs.max(axis=1), outputs.argmax(axis=1) == targets
    gap = 0.0
    for place in range(15):
        inside = (confidence >= place / 15) & (confidence < (place + 1) / 15)
        if inside.any():
            gap += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, targets))
    assert metrics["ece"].value == pytest.approx(gap, abs=1e-6)


@given(weighted_cases(), st.integers(0, 25))
def test_union_is_the_sum_of_its_parts(cases: tuple[np.ndarray, np.ndarray, np.ndarray], border: int) -> None:
    outputs, targets, weights = cases
    first = FAMILY.collect(outputs[:border], targets[:border], weights[:, :border])
    second = FAMILY.collect(outputs[border:], targets[border:], weights[:, border:])
    np.testing.assert_array_equal(first + second, FAMILY.collect(outputs, targets, weights))


@given(weighted_cases(), st.randoms())
def test_order_of_cases_is_nothing(
    cases: tuple[np.ndarray, np.ndarray, np.ndarray], shuffler: random.Random
) -> None:
    outputs, targets, weights = cases
    order = list(range(targets.size))
    shuffler.shuffle(order)
    shuffled = FAMILY.collect(outputs[order], targets[order], weights[:, order])
    np.testing.assert_array_equal(shuffled, FAMILY.collect(outputs, targets, weights))


@given(weighted_cases())
def test_weight_is_repetition(cases: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    outputs, targets, weights = cases
    weighted = FAMILY.collect(outputs, targets, weights)
    for row, weight in zip(weighted, weights, strict=True):
        repeated = vector_of(FAMILY, np.repeat(outputs, weight, axis=0), np.repeat(targets, weight))
        np.testing.assert_array_equal(row, repeated)


@given(weighted_cases())
def test_counts_agree_with_each_other(cases: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    outputs, targets, weights = cases
    for row, weight in zip(FAMILY.collect(outputs, targets, weights), weights, strict=True):
        total = int(weight.sum())
        scores = row[9 : 9 + 3 * 2 * 256].reshape(3, 2, 256)
        assert row[-1] == row[:9].sum() == row[-48:-33].sum() == total
        assert (scores.sum(axis=(1, 2)) == total).all()
        np.testing.assert_array_equal(scores[:, 1].sum(axis=1), row[:9].reshape(3, 3).sum(axis=1))
        assert row[-33:-18].sum() == np.trace(row[:9].reshape(3, 3))


@given(weighted_cases())
def test_primary_values_loss_and_metrics_agree(cases: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    statistics = FAMILY.collect(*cases)
    values = FAMILY.primary_values(statistics)
    assert values.shape == (3,)
    for row, value in zip(statistics, values, strict=True):
        metrics = FAMILY.metrics(row)
        primary = metrics[FAMILY.primary].value
        assert primary == value if primary is not None else np.isnan(value)
        assert FAMILY.loss(row) == (math.inf if metrics["loss"].value is None else metrics["loss"].value)


@given(weighted_cases())
def test_figures_are_fractions_and_undefined_ones_have_reasons(
    cases: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    for row in FAMILY.collect(*cases):
        for name, metric in FAMILY.metrics(row).items():
            assert metric.denominator
            assert (metric.value is None) == bool(metric.undefined)
            if metric.value is not None:
                assert 0.0 <= metric.value <= {"loss": 100.0, "brier": 2.0 + UNIT}.get(name, 1.0)


def test_no_cases_leave_everything_undefined_with_reasons() -> None:
    statistics = FAMILY.collect(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64), ones(0))
    metrics = FAMILY.metrics(statistics[0])
    assert all(
        metric.value is None and metric.undefined and metric.denominator for metric in metrics.values()
    )
    assert metrics["macro_auroc"].undefined == "no cases"
    assert metrics["sensitivity_covid19"].undefined == "no covid19 cases"
    assert metrics["ppv_covid19"].undefined == "no case was called covid19"
    assert FAMILY.loss(statistics[0]) == math.inf
    assert np.isnan(FAMILY.primary_values(statistics)).all()
    assert FAMILY.curves(statistics[0]) == {
        "roc": {},
        "calibration": {"confidence": [], "accuracy": [], "count": []},
        "confusion": {"classes": list(CLASSES), "counts": [[0] * 3] * 3},
    }


def test_one_class_says_which() -> None:
    outputs, _ = draw_cases(5, 12)
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, np.full(12, 2)))
    assert metrics["macro_auroc"].value is None
    assert metrics["macro_auroc"].undefined == "only class covid19 is present"
    assert metrics["auroc_covid19"].undefined == "only class covid19 is present"
    assert metrics["auroc_normal"].undefined == "no normal cases"
    assert metrics["specificity_covid19"].undefined == "only class covid19 is present"
    assert metrics["sensitivity_normal"].undefined == "no normal cases"
    assert metrics["balanced_accuracy"].value == metrics["sensitivity_covid19"].value
    assert "1 of 3 classes (covid19)" in metrics["balanced_accuracy"].denominator


def test_absent_class_is_left_out_of_the_mean_and_named() -> None:
    outputs, targets = draw_cases(6, 80)
    targets = np.where(targets == 1, 0, targets)
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, targets))
    areas = [metrics["auroc_normal"].value, metrics["auroc_covid19"].value]
    assert metrics["macro_auroc"].value == pytest.approx(np.mean(areas), abs=1e-15)
    assert metrics["auroc_pneumonia"].undefined == "no pneumonia cases"
    assert metrics["macro_auroc"].denominator == (
        "mean over 2 of 3 classes (normal, covid19); no pneumonia cases"
    )


def test_all_classes_are_counted_in_words() -> None:
    outputs, targets = draw_cases(6, 80)
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, targets))
    assert metrics["macro_auroc"].denominator == "mean over all 3 classes"


def test_certain_and_wrong_costs_the_capped_loss() -> None:
    outputs = np.array([[0.0, 1.0, 0.0]], dtype=np.float32)
    metrics = FAMILY.metrics(vector_of(FAMILY, outputs, np.array([0])))
    assert metrics["loss"].value == 100.0
    assert metrics["brier"].value == 2.0
    assert metrics["ece"].value == 1.0


def test_largest_weights_stay_exact() -> None:
    outputs = np.array([[1.0, 0.0, 0.0], [0.0, 0.999999, 0.000001]], dtype=np.float32)
    targets = np.array([1, 0])
    unit = FAMILY.collect(outputs, targets, np.eye(2, dtype=np.int64))
    first, second = 2**29 - 3, 3
    whole = FAMILY.collect(outputs, targets, np.array([[first, second]]))[0]
    expected = [a * first + b * second for a, b in zip(unit[0].tolist(), unit[1].tolist(), strict=True)]
    assert whole.tolist() == expected


def test_curves_are_plain_data_of_the_same_figures() -> None:
    outputs, targets = draw_cases(7, 500)
    vector = vector_of(FAMILY, outputs, targets)
    curves = json.loads(json.dumps(FAMILY.curves(vector), allow_nan=False))
    metrics = FAMILY.metrics(vector)
    assert list(curves["roc"]) == list(CLASSES)
    for name, points in curves["roc"].items():
        area = np.trapezoid(points["tpr"], points["fpr"])
        assert len(points["fpr"]) <= 200
        assert area == pytest.approx(metrics[f"auroc_{name}"].value, abs=1e-3)
    gap = (
        sum(
            count * abs(accuracy - confidence)
            for confidence, accuracy, count in zip(*curves["calibration"].values(), strict=True)
        )
        / 500
    )
    assert gap == pytest.approx(metrics["ece"].value, abs=1e-12)
    counts = confusion_matrix(targets, outputs.argmax(axis=1)).tolist()
    assert curves["confusion"] == {"classes": list(CLASSES), "counts": counts}


def test_site_that_lacks_a_class_has_no_curve_for_it() -> None:
    outputs, targets = draw_cases(8, 50)
    curves = FAMILY.curves(vector_of(FAMILY, outputs, np.where(targets == 1, 0, targets)))
    assert list(curves["roc"]) == ["normal", "covid19"]


def test_nan_outputs_are_refused_before_they_become_counts() -> None:
    outputs, targets = draw_cases(9, 5)
    outputs[3] = np.nan
    with pytest.raises(InvalidUpdate, match="1 of 5 cases"):
        FAMILY.collect(outputs, targets, ones(5))


@pytest.mark.parametrize("method", [FAMILY.metrics, FAMILY.loss, FAMILY.curves])
@pytest.mark.parametrize(
    "statistics",
    [
        np.zeros(FAMILY.size - 1, dtype=np.int64),
        np.zeros(FAMILY.size),
        np.zeros((1, FAMILY.size), dtype=np.int64),
    ],
)
def test_foreign_vectors_are_refused(method: Callable[[np.ndarray], object], statistics: np.ndarray) -> None:
    with pytest.raises(InvalidUpdate, match=f"expected int64 with last axis {FAMILY.size}"):
        method(statistics)


def test_negative_and_foreign_replicates_are_refused() -> None:
    statistics = np.zeros((2, FAMILY.size), dtype=np.int64)
    statistics[1, 4] = -1
    with pytest.raises(InvalidUpdate, match="negative"):
        FAMILY.primary_values(statistics)
    with pytest.raises(InvalidUpdate, match="2 axes"):
        FAMILY.primary_values(statistics[0])


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a")])
def test_fewer_than_two_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two or more distinct names"):
        ClassificationStatistics(classes, 16)


def test_one_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="score_bins is 1"):
        ClassificationStatistics(("a", "b"), 1)
