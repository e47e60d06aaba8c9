"""What the statistics refuse."""

import numpy as np
import pytest

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.metrics.classification_input import LARGEST_TOTAL_WEIGHT, check_cases

OUTPUTS = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=np.float32)
TARGETS = np.array([0, 2])
WEIGHTS = np.ones((1, 2), dtype=np.int64)


def test_probabilities_also_rounded_or_none_at_all_pass() -> None:
    check_cases(OUTPUTS, TARGETS, WEIGHTS, 3)
    check_cases(OUTPUTS * np.float32(1 + 1e-6), TARGETS, WEIGHTS, 3)
    check_cases(OUTPUTS[:0], TARGETS[:0], WEIGHTS[:, :0], 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_diverged_outputs_are_counted_in_the_refusal(bad: float) -> None:
    outputs = OUTPUTS.copy()
    outputs[1, 0] = bad
    with pytest.raises(InvalidUpdate, match="outputs of 1 of 2 cases are NaN or infinite"):
        check_cases(outputs, TARGETS, WEIGHTS, 3)


@pytest.mark.parametrize(
    "row", [[2.0, -1.0, 0.0], [0.5, 0.5, 0.5], [-0.7, -1.4, -1.4], [0.0, 0.0, 0.0], [3e38, 3e38, -3e38]]
)
def test_logits_and_logarithms_are_refused(row: list[float]) -> None:
    outputs = np.array([OUTPUTS[0], row], dtype=np.float32)
    with pytest.raises(InvalidUpdate, match="outputs of 1 of 2 cases are not probabilities"):
        check_cases(outputs, TARGETS, WEIGHTS, 3)


@pytest.mark.parametrize("outputs", [OUTPUTS[:, :2], OUTPUTS[0], OUTPUTS.astype(np.int64), OUTPUTS[None]])
def test_outputs_of_wrong_shape_or_type_are_refused(outputs: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"outputs are .* expected floating \(N, 3\)"):
        check_cases(outputs, TARGETS, WEIGHTS, 3)


@pytest.mark.parametrize("targets", [TARGETS[:1], TARGETS[:, None], TARGETS.astype(np.float64)])
def test_targets_of_wrong_shape_or_type_are_refused(targets: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"targets are .* expected integer \(2,\)"):
        check_cases(OUTPUTS, targets, WEIGHTS, 3)


@pytest.mark.parametrize("targets", [[-1, 0], [0, 3]])
def test_unknown_classes_are_refused(targets: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 0 to 2"):
        check_cases(OUTPUTS, np.array(targets), WEIGHTS, 3)


@pytest.mark.parametrize("weights", [WEIGHTS[0], WEIGHTS[:, :1], WEIGHTS.astype(np.float64)])
def test_weights_of_wrong_shape_or_type_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"weights are .* expected integer \(1 \+ R, 2\)"):
        check_cases(OUTPUTS, TARGETS, weights, 3)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weights go down to -1"):
        check_cases(OUTPUTS, TARGETS, WEIGHTS - 2, 3)


@pytest.mark.parametrize("extra", [1, 2**62])
def test_weights_too_large_to_sum_exactly_are_refused(extra: int) -> None:
    weights = np.array([[1, 1], [LARGEST_TOTAL_WEIGHT, 0]])
    check_cases(OUTPUTS, TARGETS, weights, 3)
    with pytest.raises(ValueError, match="collect in parts"):
        check_cases(OUTPUTS, TARGETS, weights + np.array([[0], [extra]]), 3)
