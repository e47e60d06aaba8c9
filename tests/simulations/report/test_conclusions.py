"""Conclusions never claim more than the interval says."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.report.conclusions import conclusions_of, first_line, verdict_of
from fedcad.simulations.report.records import ComparisonRecord
from fedcad.simulations.report.run_folder import Journal, Run

Pair = tuple[float, float]


def with_comparison(run: Run, against: str, on: str, interval: Pair | None, undefined: str = "") -> Run:
    """Put one comparison in place of all others."""
    middle = None if interval is None else sum(interval) / 2
    record = ComparisonRecord(
        model="federated",
        against=against,
        on=on,
        metric="macro_auroc",
        difference=middle,
        interval=interval,
        undefined=undefined,
    )
    return dataclasses.replace(run, results=run.results.model_copy(update={"comparisons": (record,)}))


def texts(run: Run) -> str:
    return "\n".join(item.text for item in conclusions_of(run))


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.01, 0.05), "gain"), ((-0.01, 0.05), "no evidence"), ((0.0, 0.05), "no evidence"),
     ((-0.05, 0.0), "no evidence"), ((-0.05, -0.01), "loss"), (None, "no interval")],
)  # fmt: skip
def test_verdict(interval: Pair | None, verdict: str) -> None:
    assert verdict_of(interval) == verdict


finite = st.floats(min_value=-1, max_value=1, allow_nan=False)


@given(ends=st.tuples(finite, finite))
def test_verdict_is_gain_exactly_where_the_whole_interval_is_above_zero(ends: Pair) -> None:
    low, high = sorted(ends)
    assert (verdict_of((low, high)) == "gain") == (low > 0)
    assert (verdict_of((low, high)) == "loss") == (high < 0)


def test_gain_no_evidence_and_loss_over_the_mean(five: Run) -> None:
    gain = conclusions_of(with_comparison(five, "alone", "mean of sites", (0.01, 0.05)))[0]
    assert gain.tone == "good"
    assert gain.text.startswith("Evidence of a gain: over 3 sites")
    assert "+0.030, interval +0.010 to +0.050" in gain.text
    unclear = conclusions_of(with_comparison(five, "alone", "mean of sites", (-0.01, 0.05)))[0]
    assert unclear.tone == "neutral"
    assert unclear.text.startswith("No evidence of a gain or a loss")
    assert "does not show that they are equal" in unclear.text
    loss = conclusions_of(with_comparison(five, "alone", "mean of sites", (-0.05, -0.01)))[0]
    assert loss.tone == "caution"
    assert loss.text.startswith("Evidence of a loss")


def test_without_an_interval_nothing_is_concluded(five: Run) -> None:
    found = conclusions_of(with_comparison(five, "alone", "mean of sites", None, "only one patient"))[0]
    assert found.text == (
        "Federated against the mean of sites training alone: nothing can be concluded (only one patient)."
    )


def test_the_ensemble_that_does_as_well_is_said(five: Run) -> None:
    text = texts(with_comparison(five, "ensemble", "union", (-0.02, 0.03)))
    assert "No evidence that federated training beats the ensemble" in text
    assert "may do as well" in text
    text = texts(with_comparison(five, "ensemble", "union", (-0.03, -0.02)))
    assert "does better on the union" in text


def test_pooled_is_judged_both_ways(five: Run) -> None:
    assert "falls short of one model" in texts(with_comparison(five, "pooled", "union", (-0.03, -0.02)))
    assert "No evidence of a difference" in texts(with_comparison(five, "pooled", "union", (-0.03, 0.02)))


def test_sites_sorted_by_verdict(five: Run) -> None:
    text = next(item.text for item in conclusions_of(five) if item.text.startswith("Site by site"))
    for row in five.results.comparisons:
        if row.against == "alone" and row.on in ("kigali", "lyon", "osaka"):
            phrase = {"gain": "evidence of a gain at", "no evidence": "no evidence either way at"}
            part = next(p for p in text.split("; ") if row.on in p)
            assert phrase[verdict_of(row.interval)] in part


def test_many_comparisons_are_warned_of(thirty: Run, five: Run) -> None:
    assert "30 comparisons, one or more intervals may miss 0 by chance" in texts(thirty)
    assert "by chance" not in texts(five)


def test_facts_that_bound_the_conclusions_are_said(five: Run) -> None:
    text = texts(five)
    assert "Not in the mean of sites, as undefined there, is quito (all 16 test cases are normal" in text
    assert "fewer than 20 cases: quito (16)" in text
    assert "External test at tromso, which never trained: macro AUROC 0." in text
    assert "Worst site for the federated model: " in text
    assert "kigali missed 2 of 12 rounds: lost 2 times (the worker process died)." in text
    assert "Left out of the simulation: nuuk (3 patients, minimum_patients is 10)." in text


def test_untrained_model_is_said(five: Run) -> None:
    results = five.results.model_copy(update={"selected_version": 0})
    assert "the untrained initial one" in texts(dataclasses.replace(five, results=results))


def test_stopped_run(stopped: Run) -> None:
    first = conclusions_of(stopped)[0]
    assert "stopped after 4 of 12 planned rounds" in first.text
    assert "the quorum is 3" in first.text
    assert "No model was tested, so nothing can be said about a gain." in texts(stopped)
    assert first_line(stopped).startswith("Stopped after 4 of 12 rounds (round 5 closed with 1 update")


def test_first_line_says_whether_every_site_took_part(five: Run, lonely: Run) -> None:
    assert first_line(five) == (
        "Completed 12 of 12 rounds; 3 of 4 training sites missed rounds: "
        "kigali (2 of 12), lyon (1 of 12) and osaka (1 of 12)."
    )
    assert first_line(lonely).endswith("its one training site took part in every round.")
    silent = dataclasses.replace(five, journal=Journal())
    assert first_line(silent).endswith("no round was recorded, so no site took part.")


def test_without_baselines_no_gain_is_claimed(lonely: Run) -> None:
    assert "Whether sites gain cannot be said" in conclusions_of(lonely)[0].text


@pytest.mark.parametrize(
    ("interval", "said"),
    [((0.01, 0.05), "Evidence that taking part helps: the federated model beats models that were trained"),
     ((-0.01, 0.05), "No evidence of a difference to models that were trained without the site"),
     ((-0.05, -0.01), "Evidence that the federated model falls short of models that were trained")],
)  # fmt: skip
def test_taking_part_is_judged_by_the_models_trained_without_a_site(
    five: Run, interval: Pair, said: str
) -> None:
    assert said in texts(with_comparison(five, "without", "mean of sites", interval))
    assert "taking part helps" not in texts(five)
