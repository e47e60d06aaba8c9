"""Records refuse what does not fit together and keep no figure that is none."""

import pytest

from fedcad.simulations.report.records import ComparisonRecord, Curves


def comparison(interval: str) -> ComparisonRecord:
    start = '{"model": "federated", "against": "alone", "on": "a", "metric": "m", "difference": 0.1, '
    return ComparisonRecord.model_validate_json(start + f'"interval": {interval}}}')


def test_intervals_are_whole_or_absent_and_in_order() -> None:
    assert comparison("[0.1, 0.2]").interval == (0.1, 0.2)
    assert comparison("null").interval is None
    assert comparison("[NaN, 0.2]").interval is None
    assert comparison("[0.1, null]").interval is None
    with pytest.raises(ValueError, match="low end"):
        comparison("[0.2, 0.1]")
    with pytest.raises(ValueError, match="interval"):
        comparison("[0.1, 0.2, 0.3]")


@pytest.mark.parametrize(
    "curves",
    [
        '{"roc": {"a": {"fpr": [0, 1], "tpr": [0]}}}',
        '{"calibration": {"confidence": [0.5], "accuracy": [], "count": [1]}}',
        '{"confusion": {"classes": ["a", "b"], "counts": [[1, 2], [3]]}}',
        '{"confusion": {"classes": ["a"], "counts": []}}',
    ],
)
def test_curves_whose_parts_do_not_fit_are_refused(curves: str) -> None:
    with pytest.raises(ValueError, match=r"rates|bins|counts are not"):
        Curves.model_validate_json(curves)
