"""Names and figures are written safely and alike everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.report import wording


@given(name=st.text(), limit=st.integers(min_value=1, max_value=80))
def test_shown_is_printable_and_short(name: str, limit: int) -> None:
    shown = wording.shown(name, limit)
    assert len(shown) <= limit
    assert all(letter.isprintable() for letter in shown)


def test_shown_disarms_terminal_and_direction_characters() -> None:
    assert wording.shown("a\x1b[2Jb\u202ec\n") == "a\ufffd[2Jb\ufffdc\ufffd"


@pytest.mark.parametrize(
    ("value", "text"), [(0.9126, "0.913"), (-0.0001, "0.000"), (-0.25, "−0.250"), (1.0, "1.000")]
)
def test_figure(value: float, text: str) -> None:
    assert wording.figure(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.04, "+0.040"), (-0.04, "−0.040"), (0.0004, "0.000")])
def test_signed(value: float, text: str) -> None:
    assert wording.signed(value) == text


def test_intervals() -> None:
    assert wording.interval_text((0.5, 0.75)) == "0.500 to 0.750"
    assert wording.interval_text((-0.1, 0.2), with_sign=True, digits=1) == "−0.1 to +0.2"
    assert wording.interval_text(None) == ""


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"),
     (list("abcdefgh"), "a, b, c, d, e and 3 more")],
)  # fmt: skip
def test_enumeration(items: list[str], text: str) -> None:
    assert wording.enumeration(items) == text


def test_labels_counts_sizes_and_times() -> None:
    assert wording.metric_label("macro_auroc") == "macro AUROC"
    assert wording.metric_title("ppv_normal") == "PPV normal"
    assert wording.metric_title("balanced_accuracy") == "Balanced accuracy"
    assert wording.count(1, "case") == "1 case"
    assert wording.count(1204, "case") == "1,204 cases"
    assert [wording.data_size(size) for size in (0, 999, 1500, 3.2e6, 4e12)] == [
        "0 B", "999 B", "1.5 kB", "3.2 MB", "4 TB",
    ]  # fmt: skip
    assert [wording.duration(s) for s in (0.25, 41.3, 200, 7500)] == [
        "0.2 s",
        "41.3 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
