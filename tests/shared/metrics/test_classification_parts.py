"""What no cases can give is refused; what cases give, and any sum of it, is not and has finite metrics."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.metrics.classification import ClassificationStatistics
from fedcad.shared.metrics.classification_input import LARGEST_TOTAL_WEIGHT

FAMILY = ClassificationStatistics(("normal", "pneumonia", "covid19"), 8)
CASES = 12


def real(seed: int, cases: int = CASES, concentration: float = 0.3) -> Any:
    """Statistics of random cases under three rows of weights, the first all ones."""
    generator = np.random.default_rng(seed)
    outputs = generator.dirichlet([concentration] * 3, cases).astype(np.float32)
    weights = generator.poisson(1.0, (3, cases))
    weights[0] = 1
    return FAMILY.collect(outputs, generator.integers(0, 3, cases), weights)


def test_cases_are_counted() -> None:
    assert FAMILY.cases(real(0)[0]) == CASES
    assert FAMILY.cases(real(0, 0)[0]) == 0


@given(st.integers(0, 10**6), st.integers(0, 30), st.sampled_from([1e-3, 0.3, 5.0]), st.integers(1, 2**20))
@settings(max_examples=60, deadline=None)
def test_what_cases_give_passes_and_so_does_any_sum(
    seed: int, cases: int, concentration: float, factor: int
) -> None:
    one, other = real(seed, cases, concentration), real(seed + 1)
    for values in (one, one + other, one * factor):
        FAMILY.check(values)
        figures = [metric.value for row in values for metric in FAMILY.metrics(row).values()]
        assert all(value is None or math.isfinite(value) for value in figures)


def test_the_loss_and_score_of_the_worst_case_pass() -> None:
    """Certain and wrong: 100 nat and Brier's score 2, for each of 5 cases."""
    outputs = np.tile(np.float32([1, 0, 0]), (5, 1))
    values = FAMILY.collect(outputs, np.full(5, 2), np.ones((1, 5), dtype=np.int64))
    assert values[0, -3:].tolist() == [500 * 2**24, 10 * 2**24, 5]
    FAMILY.check(values)
    values[0, -3] += 1
    with pytest.raises(InvalidUpdate, match="loss"):
        FAMILY.check(values)


BEGINS = {"confusion": 0, "scores": 9, "bin_cases": 57, "bin_correct": 72, "bin_confidence": 87}
"""Where each part begins, by hand: 3 · 3 + 3 · 2 · 8 + 3 · 15 + 3 = 105 statistics."""


def add(index: int, amount: int) -> Callable[[Any], None]:
    def change(row: Any) -> None:
        row[index] += amount

    return change


def move_score(row: Any) -> None:
    """Move a case of class 0 from those of it to those not of it: the sum of both stays."""
    positive = BEGINS["scores"] + 8 + int(np.flatnonzero(row[BEGINS["scores"] + 8 :][:8])[0])
    row[positive] -= 1
    row[BEGINS["scores"]] += 1


def move_hit(row: Any) -> None:
    """Call one case of class 0 rightly that was not: the cases of the class stay."""
    wrong = 1 if row[1] else 2
    row[wrong] -= 1
    row[0] += 1


def move_correct(row: Any) -> None:
    """Put all that are correct into a bin with fewer cases: the sum stays."""
    correct = row[BEGINS["bin_correct"] : BEGINS["bin_confidence"]]
    total = int(correct.sum())
    correct[:] = 0
    correct[0] = total


SPOILT: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a case more": ("confusion", add(FAMILY.size - 1, 1)),
    "a true case more": ("confusion", add(BEGINS["confusion"], 1)),
    "a score more": ("scores", add(BEGINS["scores"] + 1, 1)),
    "a score of another class": ("scores", move_score),
    "a calibrated case more": ("bin_cases", add(BEGINS["bin_cases"] + 3, 1)),
    "a hit more": ("bin_correct", move_hit),
    "more correct than cases in a bin": ("bin_correct", move_correct),
    "too confident": ("bin_confidence", add(BEGINS["bin_confidence"], 2**40)),
    "too much loss": ("loss", add(FAMILY.size - 3, CASES * 101 * 2**24)),
    "too much of Brier's score": ("brier", add(FAMILY.size - 2, CASES * 4 * 2**24)),
    "counts that wrap around": ("scores", add(BEGINS["scores"], 2**62)),
    "more cases than there can be": ("cases", lambda row: row.__imul__(LARGEST_TOTAL_WEIGHT)),
}


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("kind", SPOILT)
def test_what_no_cases_can_give_is_refused_in_any_row(kind: str, row: int) -> None:
    name, spoil = SPOILT[kind]
    values = real(3)
    FAMILY.check(values)
    spoil(values[row])
    with pytest.raises(InvalidUpdate, match=f"contradict.*{name}"):
        FAMILY.check(values)


@pytest.mark.parametrize("shape", [(105,), (1, 104), (1, 1, 105)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidUpdate, match="expected int64"):
        FAMILY.check(np.zeros(shape, dtype=np.int64))
