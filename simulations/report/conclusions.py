"""Plain-language conclusions that never claim more than the interval says.

An interval above 0 is called evidence of a gain, one below 0 evidence of a loss; one that contains or
touches 0 is *no evidence either way*, which is not evidence of equality. Without an interval nothing is
concluded. Figures hold for this run's test sets and its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedcad.simulations.report.headline import SMALL_TEST_SET, Headline, Row, headline_of, why_undefined
from fedcad.simulations.report.participation import Attendance, attendance_of
from fedcad.simulations.report.records import (
    MEAN_OF_SITES,
    UNION,
    ComparisonRecord,
    Interval,
    Results,
)
from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.unseen import WITHOUT
from fedcad.simulations.report.wording import (
    count,
    enumeration,
    figure,
    interval_text,
    metric_label,
    shown,
    signed,
)

_SITES_NAMED_ONE_BY_ONE = 4
"""More sites that missed rounds than this are counted, not listed."""

Verdict = Literal["gain", "no evidence", "loss", "no interval"]
Tone = Literal["good", "neutral", "caution"]

_PHRASES: dict[Verdict, str] = {
    "gain": "evidence of a gain",
    "loss": "evidence of a loss",
    "no evidence": "no evidence either way",
    "no interval": "no interval to judge by",
}
_RIVALS = {
    "alone": "the mean of sites training alone",
    "ensemble": "the ensemble of the sites' own models",
    "pooled": "one model trained on the pooled cases",
    WITHOUT: "models that were trained without the site they are tested at",
}


@dataclass(frozen=True)
class Conclusion:
    """One or two sentences.

    Attributes:
        tone: ``good``, ``neutral`` or ``caution``; shown as a word and a mark, never by colour alone.
        text: Plain text, not escaped.
    """

    tone: Tone
    text: str


def verdict_of(interval: Interval) -> Verdict:
    """Judge a difference by its interval alone.

    Guarantees:
        ``gain`` only where the whole interval is above 0, ``loss`` only where it is below; an end at 0 is
        ``no evidence``.
    """
    if interval is None:
        return "no interval"
    if interval[0] > 0:
        return "gain"
    return "loss" if interval[1] < 0 else "no evidence"


def first_line(run: Run) -> str:
    """Say whether the run completed and whether every site took part: the first line of every report."""
    results, attendance = run.results, attendance_of(run.results, run.journal)
    closed = f"{results.rounds_closed} of {count(results.rounds_planned, 'round')}"
    start = f"Completed {closed}" if results.status == "completed" else f"Stopped after {closed}"
    why = f" ({shown(results.reason, 400)})" if results.status == "stopped" and results.reason else ""
    return f"{start}{why}; {_who_took_part(results, attendance)}."


def conclusions_of(run: Run) -> tuple[Conclusion, ...]:
    """Derive all conclusions, the most important first."""
    results = run.results
    headline = headline_of(results)
    attendance = attendance_of(results, run.journal)
    return (
        *_about_stopping(results),
        *_about_gain(results, headline),
        *_about_sites(headline),
        *_about_simpler(results),
        *_about_pooled(results),
        *_about_unseen(results),
        *_about_worst(headline),
        *_about_external(results, headline),
        *_about_undefined(headline),
        *_about_small_tests(headline),
        *_about_participation(attendance),
        *_about_selection(results),
        *_about_excluded(results),
    )


def _who_took_part(results: Results, attendance: Attendance) -> str:
    training = sum(site.role == "training" for site in results.sites)
    if not attendance.rounds:
        return "no round was recorded, so no site took part"
    if not attendance.losses:
        if training == 1:
            return "its one training site took part in every round"
        return f"all {training} training sites took part in every round they were asked for"
    missed = [
        f"{shown(site.site)} ({len(site.missed)} of {len(site.by_round)})" for site in attendance.losses
    ]
    return f"{len(missed)} of {count(training, 'training site')} missed rounds: {enumeration(missed)}"


def _about_stopping(results: Results) -> list[Conclusion]:
    if results.status == "completed":
        return []
    reason = f" Reason: {shown(results.reason, 400)}." if results.reason else ""
    after = f"after {results.rounds_closed} of {count(results.rounds_planned, 'planned round')}"
    text = f"The run stopped {after}.{reason} Figures, where there are any, describe an unfinished model."
    return [Conclusion("caution", text)]


def _measured(comparison: ComparisonRecord) -> str:
    """Write a difference with its interval."""
    interval = interval_text(comparison.interval, with_sign=True)
    difference = "undefined" if comparison.difference is None else signed(comparison.difference)
    return f"{difference}, interval {interval}" if interval else difference


def _undecided(comparison: ComparisonRecord, rival: str) -> Conclusion:
    why = shown(comparison.undefined, 300) or "no interval was computed"
    return Conclusion("caution", f"Federated against {rival}: nothing can be concluded ({why}).")


def _about_gain(results: Results, headline: Headline) -> list[Conclusion]:
    comparison = results.comparison("alone", MEAN_OF_SITES)
    if comparison is None:
        return [Conclusion("neutral", _no_alone(results))]
    verdict = verdict_of(comparison.interval)
    if verdict == "no interval" or comparison.difference is None:
        return [_undecided(comparison, _RIVALS["alone"])]
    compared = [row for row in headline.rows if row.gain is not None and row.gain.difference is not None]
    over = f"over {count(len(comparison.sites) or len(compared) or len(headline.in_mean), 'site')}"
    better = f"the federated model's mean {metric_label(comparison.metric)} is"
    measured = _measured(comparison)
    if verdict == "gain":
        text = f"Evidence of a gain: {over}, {better} above that of the sites' own models ({measured})."
        return [Conclusion("good", text)]
    if verdict == "loss":
        text = f"Evidence of a loss: {over}, {better} below that of the sites' own models ({measured})."
        return [Conclusion("caution", text)]
    text = (
        f"No evidence of a gain or a loss {over}: the interval of federated minus alone contains 0 "
        f"({measured}). That does not show that they are equal."
    )
    return [Conclusion("neutral", text)]


def _no_alone(results: Results) -> str:
    if not results.evaluations:
        return "No model was tested, so nothing can be said about a gain."
    return (
        "Whether sites gain cannot be said: the run did not train sites alone "
        "(baselines.alone) or has no mean over sites."
    )


def _names(rows: Sequence[Row]) -> str:
    return enumeration([shown(row.name) for row in rows])


def _about_sites(headline: Headline) -> list[Conclusion]:
    """Sort the training sites by verdict."""
    judged: dict[Verdict, list[Row]] = {verdict: [] for verdict in _PHRASES}
    for row in headline.rows:
        if row.gain is not None and row.gain.difference is not None:
            judged[verdict_of(row.gain.interval)].append(row)
    compared = sum(len(rows) for rows in judged.values())
    if not compared:
        return []
    parts = [f"{_PHRASES[verdict]} at {_names(rows)}" for verdict, rows in judged.items() if rows]
    text = f"Site by site, federated against alone: {'; '.join(parts)}."
    if compared >= 5:
        text += f" With {compared} comparisons, one or more intervals may miss 0 by chance alone."
    return [Conclusion("caution" if judged["loss"] else "neutral", text)]


def _broadest(results: Results, against: str) -> ComparisonRecord | None:
    """Return the mean of sites where it is there, else the union."""
    return results.comparison(against, MEAN_OF_SITES) or results.comparison(against, UNION)


def _about_simpler(results: Results) -> list[Conclusion]:
    """Say whether the ensemble, which needs no rounds at all, does as well."""
    comparison = _broadest(results, "ensemble")
    if comparison is None:
        return []
    verdict, rival = verdict_of(comparison.interval), _RIVALS["ensemble"]
    if verdict == "no interval" or comparison.difference is None:
        return [_undecided(comparison, rival)]
    measured, on = _measured(comparison), f"on the {comparison.on}"
    if verdict == "gain":
        return [Conclusion("good", f"Evidence that federated training beats {rival} {on} ({measured}).")]
    if verdict == "loss":
        text = (
            f"Evidence that {rival}, which needs no rounds of training together, does better {on} "
            f"({measured})."
        )
        return [Conclusion("caution", text)]
    text = (
        f"No evidence that federated training beats {rival} {on} ({measured}): the simpler alternative, "
        "which needs no rounds of training together, may do as well."
    )
    return [Conclusion("caution", text)]


def _about_pooled(results: Results) -> list[Conclusion]:
    comparison = _broadest(results, "pooled")
    if comparison is None:
        return []
    verdict, rival = verdict_of(comparison.interval), _RIVALS["pooled"]
    if verdict == "no interval" or comparison.difference is None:
        return [_undecided(comparison, rival)]
    measured, on = _measured(comparison), f"on the {comparison.on}"
    text = {
        "gain": f"Evidence that the federated model does better than {rival} {on} ({measured}).",
        "loss": f"Evidence that the federated model falls short of {rival} {on} ({measured}).",
        "no evidence": f"No evidence of a difference to {rival} {on} ({measured}).",
    }[verdict]
    return [Conclusion("neutral", text)]


def _about_unseen(results: Results) -> list[Conclusion]:
    """Say whether a site's own taking part shows in its own figure."""
    comparison = results.comparison(WITHOUT, MEAN_OF_SITES)
    if comparison is None:
        return []
    verdict, rival = verdict_of(comparison.interval), _RIVALS[WITHOUT]
    if verdict == "no interval" or comparison.difference is None:
        return [_undecided(comparison, rival)]
    over = f"the mean over {count(len(comparison.sites), 'site')} that were each left out once"
    text = {
        "gain": f"Evidence that taking part helps: the federated model beats {rival}, by {over}",
        "loss": f"Evidence that the federated model falls short of {rival}, by {over}",
        "no evidence": f"No evidence of a difference to {rival}, by {over}",
    }[verdict]
    return [Conclusion("good" if verdict == "gain" else "neutral", f"{text} ({_measured(comparison)}).")]


def _about_worst(headline: Headline) -> list[Conclusion]:
    worst = headline.worst
    defined = [row for row in headline.rows if row.federated is not None]
    if worst is None or worst.federated is None or len(defined) < 2:
        return []
    interval = interval_text(worst.cells["federated"].interval)
    figures = figure(worst.federated) + (f", interval {interval}" if interval else "")
    return [
        Conclusion(
            "neutral",
            f"Worst site for the federated model: {shown(worst.name)} ({figures}, "
            f"{count(worst.test_cases, 'test case')}).",
        )
    ]


def _about_external(results: Results, headline: Headline) -> list[Conclusion]:
    found = []
    for row in headline.rows:
        if row.role != "external":
            continue
        if row.federated is None:
            text = f"External test at {shown(row.name)}: undefined ({shown(why_undefined(row), 300)})."
        else:
            interval = interval_text(row.cells["federated"].interval)
            text = (
                f"External test at {shown(row.name)}, which never trained: "
                f"{metric_label(results.primary_metric)} {figure(row.federated)}"
                + (f", interval {interval}." if interval else ", no interval.")
            )
        found.append(Conclusion("neutral", text))
    return found


def _about_undefined(headline: Headline) -> list[Conclusion]:
    if not headline.not_in_mean or not any(row.cells for row in headline.rows):
        return []
    sites = [f"{shown(name)} ({shown(why, 300)})" for name, why in headline.not_in_mean]
    verb = "is" if len(sites) == 1 else "are"
    return [
        Conclusion("caution", f"Not in the mean of sites, as undefined there, {verb} {enumeration(sites)}.")
    ]


def _about_small_tests(headline: Headline) -> list[Conclusion]:
    small = [f"{shown(row.name)} ({row.test_cases})" for row in headline.rows if row.is_small and row.cells]
    if not small:
        return []
    text = (
        f"Small test sets, fewer than {SMALL_TEST_SET} cases: {enumeration(small)}. Their figures say little."
    )
    return [Conclusion("caution", text)]


def _about_participation(attendance: Attendance) -> list[Conclusion]:
    found = []
    for site in attendance.losses[:_SITES_NAMED_ONE_BY_ONE]:
        reasons = [
            f"{status} {count(times, 'time')}" + (f" ({shown(reason, 200)})" if reason else "")
            for (status, reason), times in site.reasons.items()
        ]
        missed = f"missed {len(site.missed)} of {count(len(site.by_round), 'round')}"
        found.append(Conclusion("caution", f"{shown(site.site)} {missed}: {enumeration(reasons)}."))
    rest = len(attendance.losses) - _SITES_NAMED_ONE_BY_ONE
    if rest > 0:
        text = f"{count(rest, 'more site')} missed rounds; the table under Participation has all reasons."
        found.append(Conclusion("caution", text))
    absent = [shown(site.site) for site in attendance.sites if attendance.rounds and not site.by_round]
    if absent:
        found.append(Conclusion("caution", f"Never asked for an update: {enumeration(absent)}."))
    return found


def _about_selection(results: Results) -> list[Conclusion]:
    if results.selected_version > 0 or not results.evaluations:
        return []
    text = (
        "The model tested is the untrained initial one: no round had a lower validation loss. "
        "The figures say nothing about federated training."
    )
    return [Conclusion("caution", text)]


def _about_excluded(results: Results) -> list[Conclusion]:
    if not results.excluded_sites:
        return []
    sites = [f"{shown(site.name)} ({shown(site.reason, 200)})" for site in results.excluded_sites]
    return [Conclusion("neutral", f"Left out of the simulation: {enumeration(sites)}.")]
