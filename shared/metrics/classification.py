"""Statistics of softmax classification: counts and fixed-point sums from which every figure follows.

Outputs are probabilities, not their logarithms, because an ensemble averages probabilities.

Legend: N cases, C classes, H score bins, R bootstrap replicates, K = C² + 2·C·H + 48 statistics.

One vector, in this order:

=============  ============  ===========================================================================
Part           Shape         Meaning
=============  ============  ===========================================================================
confusion      (C, C)        cases by true class (first axis) and called class (the most probable one)
scores         (C, 2, H)     cases by class c, whether they are of class c (0 no, 1 yes), and bin of the
                             log-odds of class c, clipped to ±12, bins of equal width, lowest first
bin_cases      (15,)         cases by confidence (probability of the called class), bins of width 1/15
bin_correct    (15,)         those of them whose called class is the true one
bin_confidence (15,)         sum of their confidence in units of 2⁻²⁴
loss           ()            sum of the cross-entropy in units of 2⁻²⁴ nat, each case capped at 100 nat
brier          ()            sum of Brier's score Σ_c (p_c − y_c)², 0 to 2 a case, in units of 2⁻²⁴
cases          ()            number of cases
=============  ============  ===========================================================================

Why log-odds: AUROC depends on the order only, which log-odds keep, and equal bins of probability would put
nearly all scores of a confident network into the first and the last one. Why 2⁻²⁴: it is what a float32
probability resolves, and leaves room for 2²⁹ cases a site.

References:
    Brier (1950), Monthly Weather Review 78(1), 1-3. Guo, Pleiss, Sun, Weinberger (2017), arXiv:1706.04599,
    equation 3 (expected calibration error, 15 bins).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.metrics.classification_input import check_cases
from fedcad.shared.metrics.classification_parts import (
    CALIBRATION_BINS,
    LOSS_LIMIT,
    UNIT,
    Parts,
    contradictions,
)
from fedcad.shared.metrics.interface import Metric, Statistics
from fedcad.shared.metrics.roc import auroc, roc_points

LOG_ODDS_LIMIT = 12.0


class ClassificationStatistics:
    """Mergeable statistics of a problem with one of several classes for each case."""

    primary = "macro_auroc"

    def __init__(self, classes: tuple[str, ...], score_bins: int) -> None:
        """Fix the layout.

        Args:
            classes: Names of the C classes in the order of the outputs, at least two.
            score_bins: H, bins of each score histogram, at least 2.

        Raises:
            ValueError: Fewer than two classes, a repeated class, or fewer than two bins.
        """
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError(f"classes is {classes}; give two or more distinct names")
        if score_bins < 2:
            raise ValueError(f"score_bins is {score_bins}; it must be 2 or more")
        self.classes = classes
        self.score_bins = score_bins
        count = len(classes)
        widths = [count * count, count * 2 * score_bins, *3 * [CALIBRATION_BINS], 1, 1, 1]
        self._ends: list[int] = np.cumsum(widths).tolist()
        self.size = self._ends[-1]

    def collect(
        self, outputs: NDArray[np.float32], targets: NDArray[np.int64], weights: NDArray[np.int64]
    ) -> Statistics:
        """Return statistics of cases under each row of weights.

        Args:
            outputs: Probabilities, float32, shape (N, C), rows summing to 1.
            targets: True classes 0 to C - 1, shape (N,).
            weights: Integer weights of the cases, 0 or more, shape (1 + R, N).

        Returns:
            int64, shape (1 + R, K).

        Guarantees:
            The statistics of a union of cases are the sum of the parts' to the last bit, in any order; a
            weight of 2 is the same as the case twice.

        Raises:
            InvalidUpdate: Outputs are not probabilities (NaN, infinite, outside 0 to 1, not summing to 1).
            ValueError: Shapes or types do not fit, a target is not a class, a weight is negative.
        """
        check_cases(outputs, targets, weights, len(self.classes))
        probabilities = np.clip(outputs.astype(np.float64), 0.0, 1.0)
        cells, values = self._contributions(probabilities, targets)
        result = np.empty((weights.shape[0], self.size), dtype=np.int64)
        for row, weight in zip(result, weights, strict=True):
            # Sums of integers below 2^53 in float64 are exact; check_cases bounds the weights for that.
            summed = np.bincount(cells.ravel(), (values * weight).ravel(), self.size + 1)
            row[:] = summed[: self.size].astype(np.int64)
        result[:, self._ends[4] :] = weights.astype(np.int64) @ _sums_of_cases(probabilities, targets)
        return result

    def cases(self, statistics: Statistics) -> int:
        """Return the number of cases of one vector, shape (K,).

        Raises:
            InvalidUpdate: The vector is not int64 of shape (K,), or has negative entries.
        """
        return int(self._parts(self._checked(statistics, 1)).cases)

    def check(self, statistics: Statistics) -> None:
        """Refuse vectors that no cases can give: every part must count the same cases.

        Args:
            statistics: int64, shape (1 + R, K).

        Raises:
            InvalidUpdate: Not such vectors; more than 2²⁹ cases; confusion, a class's histograms, the bins of
                calibration and the number of cases do not add up; or a sum of confidence, loss or Brier's
                score is more than that number of cases can give.
        """
        parts = self._parts(self._checked(statistics, 2))
        wrong = contradictions(parts)
        if wrong:
            raise InvalidUpdate(
                f"statistics contradict themselves or their number of cases: {', '.join(wrong)}"
            )

    def metrics(self, statistics: Statistics) -> Mapping[str, Metric]:
        """Return all metrics of one vector, shape (K,), each with its denominator or why it has none.

        The names are ``accuracy``, ``balanced_accuracy`` (mean sensitivity of the classes present),
        ``macro_auroc`` (mean one-vs-rest AUROC of the classes present), ``auroc_<class>``,
        ``sensitivity_<class>``, ``ppv_<class>``, ``specificity_<class>``, ``brier`` (0 to 2), ``ece`` and
        ``loss`` (mean unweighted cross-entropy, nat).

        Raises:
            InvalidUpdate: The vector is not int64 of shape (K,), or has negative entries.
        """
        parts = self._parts(self._checked(statistics, 1))
        return {
            "accuracy": _ratio(
                int(np.trace(parts.confusion)), int(parts.cases), of="cases", otherwise="no cases"
            ),
            "balanced_accuracy": self._balanced_accuracy(parts),
            "macro_auroc": self._macro_auroc(parts),
            **dict(self._areas(parts)),
            **dict(self._fractions(parts)),
            "brier": _mean(float(parts.brier) * UNIT, int(parts.cases)),
            "ece": _mean(_calibration_gap(parts), int(parts.cases)),
            "loss": _mean(float(parts.loss) * UNIT, int(parts.cases)),
        }

    def primary_values(self, statistics: Statistics) -> NDArray[np.float64]:
        """Return macro AUROC of each vector at once; nan where it is undefined.

        Args:
            statistics: int64, shape (1 + R, K).

        Returns:
            float64, shape (1 + R,).

        Raises:
            InvalidUpdate: The vectors are not int64 of shape (1 + R, K), or have negative entries.
        """
        return _macro(self._parts(self._checked(statistics, 2)))

    def loss(self, statistics: Statistics) -> float:
        """Return the mean cross-entropy in nat of one vector, shape (K,); infinity without cases.

        Raises:
            InvalidUpdate: The vector is not int64 of shape (K,), or has negative entries.
        """
        parts = self._parts(self._checked(statistics, 1))
        cases = int(parts.cases)
        return float(parts.loss) * UNIT / cases if cases else float("inf")

    def curves(self, statistics: Statistics) -> Mapping[str, Any]:
        """Return plain data for plots of one vector, shape (K,).

        Returns:
            ``roc``: for each class that has positives and negatives, lists ``fpr`` and ``tpr`` of at most
            200 points; ``calibration``: lists ``confidence``, ``accuracy`` and ``count`` over occupied bins;
            ``confusion``: ``classes`` and ``counts``, one list for each true class.

        Raises:
            InvalidUpdate: The vector is not int64 of shape (K,), or has negative entries.
        """
        parts = self._parts(self._checked(statistics, 1))
        return {
            "roc": dict(self._roc(parts)),
            "calibration": _calibration(parts),
            "confusion": {"classes": list(self.classes), "counts": parts.confusion.tolist()},
        }

    def _contributions(
        self, probabilities: NDArray[np.float64], targets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return to which entries each case adds, and what: both (C + 4, N); entry K is discarded."""
        count, cases = len(self.classes), targets.size
        called = probabilities.argmax(axis=1) if cases else np.zeros(0, dtype=np.int64)
        confidence = probabilities[np.arange(cases), called]
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        classes = np.arange(count)[:, None]
        scores = (classes * 2 + (targets == classes)) * self.score_bins + self._score_bins(probabilities)
        cells = np.empty((count + 4, cases), dtype=np.int64)
        cells[0] = targets * count + called
        cells[1 : count + 1] = self._ends[0] + scores
        cells[count + 1] = self._ends[1] + bins
        cells[count + 2] = np.where(called == targets, self._ends[2] + bins, self.size)
        cells[count + 3] = self._ends[3] + bins
        values = np.ones((count + 4, cases))
        values[count + 3] = np.rint(confidence / UNIT)
        return cells, values

    def _score_bins(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bin of each class's log-odds, shape (C, N)."""
        with np.errstate(divide="ignore"):
            log_odds = np.log(probabilities) - np.log1p(-probabilities)
        limited = np.clip(log_odds.T, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
        places = (limited + LOG_ODDS_LIMIT) / (2 * LOG_ODDS_LIMIT) * self.score_bins
        bins: NDArray[np.int64] = np.minimum(places.astype(np.int64), self.score_bins - 1)
        if len(self.classes) == 2:
            # Two classes have one ROC curve; float32 rounding must not make them differ by a bin.
            bins[0] = self.score_bins - 1 - bins[1]
        return bins

    def _checked(self, statistics: Statistics, dimensions: int) -> Statistics:
        """Refuse what cannot be statistics."""
        shape_fits = statistics.ndim == dimensions and statistics.shape[-1] == self.size
        if not shape_fits or statistics.dtype != np.int64:
            raise InvalidUpdate(
                f"statistics are {statistics.dtype} {statistics.shape}; expected int64 with last axis "
                f"{self.size} and {dimensions} axes. Check that the site runs the same study and version"
            )
        if (statistics < 0).any():
            raise InvalidUpdate("statistics have negative entries; counts and sums are 0 or more")
        return statistics

    def _parts(self, statistics: Statistics) -> Parts:
        """Name the parts of vectors."""
        lead, count = statistics.shape[:-1], len(self.classes)
        split = np.split(statistics, self._ends[:-1], axis=-1)
        confusion = split[0].reshape(*lead, count, count)
        scores = split[1].reshape(*lead, count, 2, self.score_bins)
        return Parts(confusion, scores, *split[2:5], *(part[..., 0] for part in split[5:]))

    def _present(self, parts: Parts) -> list[str]:
        """Return the names of classes that have cases."""
        return [name for name, cases in zip(self.classes, parts.confusion.sum(axis=1), strict=True) if cases]

    def _averaged(self, present: list[str]) -> str:
        """Say over which classes a mean goes."""
        if len(present) == len(self.classes):
            return f"mean over all {len(present)} classes"
        absent = [name for name in self.classes if name not in present]
        return (
            f"mean over {len(present)} of {len(self.classes)} classes ({', '.join(present)}); "
            f"no {' or '.join(absent)} cases"
        )

    def _balanced_accuracy(self, parts: Parts) -> Metric:
        """Mean sensitivity of the classes present."""
        present = self._present(parts)
        if not present:
            return Metric(None, "0 cases", "no cases")
        cases = parts.confusion.sum(axis=1)
        sensitivity = parts.confusion.diagonal()[cases > 0] / cases[cases > 0]
        return Metric(float(sensitivity.mean()), self._averaged(present))

    def _macro_auroc(self, parts: Parts) -> Metric:
        """Mean one-vs-rest AUROC of the classes present."""
        present = self._present(parts)
        if len(present) < 2:
            reason = f"only class {present[0]} is present" if present else "no cases"
            return Metric(None, f"{int(parts.cases)} cases", reason)
        value = float(_macro(parts))
        if len(self.classes) > 2:
            return Metric(value, self._averaged(present))
        negatives, positives = parts.confusion.sum(axis=1).tolist()
        first, second = self.classes
        return Metric(value, f"{positives} {second} cases against {negatives} {first} cases")

    def _areas(self, parts: Parts) -> Iterator[tuple[str, Metric]]:
        """One-vs-rest AUROC of each class."""
        areas = auroc(parts.scores[:, 1], parts.scores[:, 0])
        for index, name in enumerate(self.classes):
            negatives, positives = parts.scores[index].sum(axis=-1).tolist()
            denominator = f"{positives} {name} cases against {negatives} others"
            if positives and negatives:
                yield f"auroc_{name}", Metric(float(areas[index]), denominator)
            else:
                reason = f"only class {name} is present" if positives else f"no {name} cases"
                yield f"auroc_{name}", Metric(None, denominator, reason)

    def _fractions(self, parts: Parts) -> Iterator[tuple[str, Metric]]:
        """Sensitivity, positive predictive value and specificity of each class."""
        true, called = parts.confusion.sum(axis=1).tolist(), parts.confusion.sum(axis=0).tolist()
        hits, cases = parts.confusion.diagonal().tolist(), sum(true)
        named = list(enumerate(self.classes))
        for i, name in named:
            yield f"sensitivity_{name}", _ratio(hits[i], true[i], f"{name} cases", f"no {name} cases")
        for i, name in named:
            reason = f"no case was called {name}"
            yield f"ppv_{name}", _ratio(hits[i], called[i], f"cases called {name}", reason)
        for i, name in named:
            rejected = cases - true[i] - called[i] + hits[i]
            reason = f"only class {name} is present" if cases else "no cases"
            yield f"specificity_{name}", _ratio(rejected, cases - true[i], f"cases not {name}", reason)

    def _roc(self, parts: Parts) -> Iterator[tuple[str, dict[str, list[float]]]]:
        """ROC points of each class that has both kinds of cases."""
        for name, (negatives, positives) in zip(self.classes, parts.scores, strict=True):
            if positives.any() and negatives.any():
                fpr, tpr = roc_points(positives, negatives)
                yield name, {"fpr": fpr, "tpr": tpr}


def _sums_of_cases(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return loss, Brier score and 1 of each case in fixed point, shape (N, 3)."""
    true = probabilities[np.arange(targets.size), targets]
    loss = -np.log(np.maximum(true, np.exp(-LOSS_LIMIT)))
    truth = np.eye(probabilities.shape[1])[targets]
    brier = ((probabilities - truth) ** 2).sum(axis=1)
    sums = np.stack([loss / UNIT, brier / UNIT, np.ones_like(loss)], axis=1)
    fixed: NDArray[np.int64] = np.rint(sums).astype(np.int64)
    return fixed


def _macro(parts: Parts) -> NDArray[np.float64]:
    """Mean one-vs-rest AUROC of the classes that define it; nan where none does."""
    areas = auroc(parts.scores[..., 1, :], parts.scores[..., 0, :])
    defined = ~np.isnan(areas)
    count = defined.sum(axis=-1)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(defined, areas, 0.0).sum(axis=-1), count, out=mean, where=count > 0)
    return mean


def _calibration_gap(parts: Parts) -> float:
    """Return the sum over bins of |correct - confidence|, in cases."""
    return float(np.abs(parts.bin_correct - parts.bin_confidence * UNIT).sum())


def _calibration(parts: Parts) -> dict[str, list[float] | list[int]]:
    """Columns of the calibration plot, over the bins that hold cases."""
    occupied = parts.bin_cases > 0
    cases = parts.bin_cases[occupied]
    return {
        "confidence": (parts.bin_confidence[occupied] * UNIT / cases).tolist(),
        "accuracy": (parts.bin_correct[occupied] / cases).tolist(),
        "count": cases.tolist(),
    }


def _ratio(part: int, whole: int, of: str, otherwise: str) -> Metric:
    """Return a fraction, or the reason why there is none."""
    if whole == 0:
        return Metric(None, f"0 {of}", otherwise)
    return Metric(part / whole, f"{part} of {whole} {of}")


def _mean(total: float, cases: int) -> Metric:
    """Return a mean over cases, or the reason why there is none."""
    if cases == 0:
        return Metric(None, "0 cases", "no cases")
    return Metric(total / cases, f"mean over {cases} cases")
