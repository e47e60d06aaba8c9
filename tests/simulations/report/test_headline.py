"""The headline table: every model beside the others, undefined figures with their reason."""

import pytest

from fedcad.simulations.report.headline import headline_of, why_undefined
from fedcad.simulations.report.run_folder import Run


def test_sites_from_best_to_worst_then_undefined_then_external(five: Run) -> None:
    headline = headline_of(five.results)
    figures = [row.federated for row in headline.rows if row.role == "training" and row.federated is not None]
    assert figures == sorted(figures, reverse=True)
    assert [row.name for row in headline.rows[-2:]] == ["quito", "tromso"]
    assert headline.models == ("federated", "alone", "ensemble", "pooled")


def test_one_class_site_is_out_of_the_mean_with_its_reason(five: Run) -> None:
    headline = headline_of(five.results)
    assert set(headline.in_mean) == {"kigali", "lyon", "osaka"}
    assert headline.not_in_mean == (("quito", "all 16 test cases are normal: nothing to tell apart"),)


def test_mean_counts_each_training_site_once(five: Run) -> None:
    headline = headline_of(five.results)
    mean = next(row for row in headline.summary if row.role == "mean")
    for model in ("federated", "alone", "ensemble", "pooled"):
        values = [row.cells[model].value for row in headline.rows if row.name in headline.in_mean]
        expected = sum(value for value in values if value is not None) / 3
        assert mean.cells[model].value == pytest.approx(expected)
        assert mean.cells[model].interval is None


def test_external_sites_have_no_model_of_their_own(five: Run) -> None:
    external = headline_of(five.results).rows[-1]
    assert "alone" not in external.cells
    assert external.gain is None
    assert external.test_cases == 88


def test_worst_is_the_lowest_defined_figure(five: Run) -> None:
    headline = headline_of(five.results)
    assert headline.worst is not None
    assert headline.worst.federated == min(
        row.federated for row in headline.rows if row.federated is not None
    )


def test_small_test_sets_are_marked(five: Run) -> None:
    assert [row.name for row in headline_of(five.results).rows if row.is_small] == ["quito"]


def test_without_evaluations_nothing_is_claimed(stopped: Run) -> None:
    headline = headline_of(stopped.results)
    assert headline.models == ()
    assert headline.summary == ()
    assert headline.worst is None
    assert why_undefined(headline.rows[0]) == "the federated model was not tested there"


def test_missing_baselines_are_absent_columns(lonely: Run) -> None:
    assert headline_of(lonely.results).models == ("federated",)


def test_a_model_undefined_at_one_site_has_no_mean(five: Run) -> None:
    changed = []
    for item in five.results.evaluations:
        if (item.model, item.on) == ("pooled", "lyon"):
            metrics = item.metrics | {
                "macro_auroc": item.metrics["macro_auroc"].model_copy(update={"value": None})
            }
            item = item.model_copy(update={"metrics": metrics})
        changed.append(item)
    headline = headline_of(five.results.model_copy(update={"evaluations": tuple(changed)}))
    mean = next(row for row in headline.summary if row.role == "mean")
    assert mean.cells["pooled"].value is None
    assert mean.cells["pooled"].undefined == "undefined at 1 of 3 sites"
    assert mean.cells["federated"].value is not None


def test_union_is_that_of_training_sites_and_external_ones_have_their_own(five: Run, unseen: Run) -> None:
    summary = {row.name: row for row in headline_of(unseen.results).summary}
    assert list(summary) == ["mean of sites", "union", "external sites"]
    sites = {site.name: site.cases.test for site in unseen.results.sites}
    assert summary["external sites"].test_cases == sites["tromso"] + sites["uluru"]
    assert summary["union"].test_cases == sum(sites.values()) - summary["external sites"].test_cases
    # One external site is its own union; the same row twice would only be confusing.
    assert [row.name for row in headline_of(five.results).summary] == ["mean of sites", "union"]
