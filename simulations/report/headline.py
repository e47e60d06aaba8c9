"""The headline: per site, the federated model beside the alternatives a hospital really has."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedcad.simulations.report.records import (
    EXTERNAL_SITES,
    MEAN_OF_SITES,
    UNION,
    ComparisonRecord,
    Interval,
    Results,
    SiteRecord,
)

MODELS = ("federated", "alone", "ensemble", "pooled")
SMALL_TEST_SET = 20
"""Below this number of test cases a site's figures are called shaky."""


@dataclass(frozen=True)
class Cell:
    """One model on one test set, in the primary metric.

    Attributes:
        value: The figure; None where undefined.
        interval: Bootstrap interval; None where there is none.
        denominator: What the figure rests on, in words.
        undefined: Why there is no value, else empty.
    """

    value: float | None
    interval: Interval = None
    denominator: str = ""
    undefined: str = ""


@dataclass(frozen=True)
class Row:
    """One test set: a site's own, the mean of training sites, their union, or that of the external ones.

    Attributes:
        name: Site, ``mean of sites``, ``union`` or ``external sites``.
        role: ``training``, ``external``, ``mean``, ``union`` or ``external union``.
        test_patients: Patients in the test set; 0 for the mean.
        test_cases: Cases in the test set; 0 for the mean.
        cells: By model; a model that was not run there is absent.
        gain: Federated minus alone; None where not compared.
    """

    name: str
    role: str
    test_patients: int
    test_cases: int
    cells: Mapping[str, Cell]
    gain: ComparisonRecord | None

    @property
    def federated(self) -> float | None:
        """The federated model's figure."""
        cell = self.cells.get("federated")
        return cell.value if cell else None

    @property
    def is_small(self) -> bool:
        """Whether the test set is too small to say much."""
        return self.role != "mean" and self.test_cases < SMALL_TEST_SET


@dataclass(frozen=True)
class Headline:
    """The headline table.

    Attributes:
        rows: Sites: training sites from best to worst federated figure, undefined last; then external ones.
        summary: Mean and union of training sites and the union of external ones, where there are such.
        models: Which of the models were run, in order.
        in_mean: Sites that the mean is over.
        not_in_mean: Training sites left out of the mean, with the reason.
        worst: The site with the lowest federated figure; None where none is defined.
    """

    rows: tuple[Row, ...]
    summary: tuple[Row, ...]
    models: tuple[str, ...]
    in_mean: tuple[str, ...]
    not_in_mean: tuple[tuple[str, str], ...]
    worst: Row | None

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Sites, then what joins them."""
        return self.rows + self.summary


def headline_of(results: Results) -> Headline:
    """Derive the headline table from the results."""
    rows = tuple(sorted((_site_row(results, site) for site in results.sites), key=_order))
    training = [row for row in rows if row.role == "training"]
    models = tuple(name for name in MODELS if any(name in row.cells for row in rows))
    in_mean = tuple(row for row in training if row.federated is not None)
    defined = [row for row in rows if row.federated is not None]
    return Headline(
        rows=rows,
        summary=tuple(row for row in _summary(results, in_mean) if row.cells),
        models=models,
        in_mean=tuple(row.name for row in in_mean),
        not_in_mean=tuple((row.name, why_undefined(row)) for row in training if row.federated is None),
        worst=min(defined, key=lambda row: (row.federated or 0.0, row.name), default=None),
    )


def why_undefined(row: Row) -> str:
    """Say why a row has no federated figure."""
    cell = row.cells.get("federated")
    if cell is None:
        return "the federated model was not tested there"
    return cell.undefined or "no reason was recorded"


def _order(row: Row) -> tuple[bool, bool, float, str]:
    return row.role == "external", row.federated is None, -(row.federated or 0.0), row.name


def cell_of(results: Results, model: str, on: str) -> Cell | None:
    """Return one model on one test set, None where it was not tested there."""
    evaluation = results.evaluation(model, on)
    if evaluation is None:
        return None
    metric = evaluation.metrics.get(results.primary_metric)
    if metric is None:
        return Cell(None, undefined=f"{results.primary_metric} was not recorded")
    if metric.value is None:
        return Cell(None, None, metric.denominator, metric.undefined or "no reason was recorded")
    return Cell(metric.value, evaluation.interval, metric.denominator)


def _cells(results: Results, on: str, alone: str) -> dict[str, Cell]:
    asked = {"federated": "federated", "alone": alone, "ensemble": "ensemble", "pooled": "pooled"}
    made = {name: cell_of(results, model, on) for name, model in asked.items()}
    return {name: cell for name, cell in made.items() if cell is not None}


def _site_row(results: Results, site: SiteRecord) -> Row:
    return Row(
        name=site.name,
        role=site.role,
        test_patients=site.patients.test,
        test_cases=site.cases.test,
        cells=_cells(results, site.name, f"alone-{site.name}"),
        gain=results.comparison("alone", site.name),
    )


def _summary(results: Results, in_mean: tuple[Row, ...]) -> list[Row]:
    roles = {UNION: "training", EXTERNAL_SITES: "external"}
    return [
        _mean_row(results, in_mean),
        *(_joined_row(results, name, roles[name]) for name in results.joined_places),
    ]


def _joined_row(results: Results, name: str, role: str) -> Row:
    """Return the row of all sites of one role together."""
    sites = [site for site in results.sites if site.role == role]
    return Row(
        name=name,
        role="union" if role == "training" else "external union",
        test_patients=sum(site.patients.test for site in sites),
        test_cases=sum(site.cases.test for site in sites),
        cells=_cells(results, name, "alone"),
        gain=results.comparison("alone", name),
    )


def _mean_row(results: Results, rows: tuple[Row, ...]) -> Row:
    """Average each model over the same sites; a model without a figure at one of them has no mean."""
    cells: dict[str, Cell] = {}
    for model in MODELS:
        values = [row.cells[model].value for row in rows if model in row.cells]
        figures = [value for value in values if value is not None]
        if figures and len(figures) == len(rows):
            over = f"mean of {len(rows)} training sites, each counted once"
            cells[model] = Cell(sum(figures) / len(figures), denominator=over)
        elif values:
            cells[model] = Cell(
                None, undefined=f"undefined at {len(rows) - len(figures)} of {len(rows)} sites"
            )
    return Row(MEAN_OF_SITES, "mean", 0, 0, cells, results.comparison("alone", MEAN_OF_SITES))
