"""Several runs side by side: one table, one plot, one page.

Runs whose figures cannot stand side by side are refused; where doubt remains, the doubt is said first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import DataError
from fedcad.simulations.report.headline import Cell, Headline, Row, headline_of
from fedcad.simulations.report.page import render_template
from fedcad.simulations.report.plot_compare import compare_plot
from fedcad.simulations.report.records import MEAN_OF_SITES, UNION, ComparisonRecord
from fedcad.simulations.report.run_folder import Run, read_run
from fedcad.simulations.report.wording import (
    MINUS,
    count,
    data_size,
    duration,
    enumeration,
    figure,
    interval_text,
    metric_title,
    shown,
    signed,
)


@dataclass(frozen=True)
class ComparedRun:
    """One run's column.

    Attributes:
        label: Short name, unique among the compared runs.
        run: The run itself.
        cells: The federated model by test set: sites, then ``mean of sites`` and ``union``.
        gain: Federated minus alone over the mean of the run's own sites; None where not compared.
        worst: The site with the lowest figure; None where none is defined.
        traffic_bytes: Bytes sent and received in all rounds.
    """

    label: str
    run: Run
    cells: Mapping[str, Cell]
    gain: ComparisonRecord | None
    worst: Row | None
    traffic_bytes: int


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side.

    Attributes:
        metric: The primary metric of all of them.
        places: Test sets, in order: sites, ``mean of sites``, ``union``.
        in_mean: Sites that the mean is over: trained and defined in every run that was tested.
        runs: One column for each run, in the order given.
        doubts: Why the figures may not be comparable, in plain words; empty where nothing speaks against it.
    """

    metric: str
    places: tuple[str, ...]
    in_mean: tuple[str, ...]
    runs: tuple[ComparedRun, ...]
    doubts: tuple[str, ...]


def compare_runs(folders: list[Path], out: Path | None, console: Console | None = None) -> RunComparison:
    """Print runs side by side and, where ``out`` is given, write ``compare.html`` and ``compare.png`` there.

    Args:
        folders: Run folders, at least two.
        out: Folder for page and plot; made where absent.
        console: Where the table goes; standard output where absent.

    Raises:
        DataError: Fewer than two runs, one of them unreadable, or of different metrics, classes or sites.
    """
    comparison = compare([read_run(folder) for folder in folders])
    print_comparison(comparison, console or Console())
    if out is not None:
        _write(comparison, out)
    return comparison


def compare(runs: Sequence[Run]) -> RunComparison:
    """Put runs side by side.

    Raises:
        DataError: They cannot stand side by side; the message says why.
    """
    labels = _labels(runs)
    _refuse_what_cannot_stand_together(runs, labels)
    headlines = [headline_of(run.results) for run in runs]
    sites = [site.name for site in runs[0].results.sites if all(_has_site(run, site.name) for run in runs)]
    tested = [headline for headline in headlines if headline.models]
    in_mean = tuple(name for name in sites if tested and all(name in item.in_mean for item in tested))
    columns = tuple(
        _column(label, run, headline, (sites, in_mean))
        for label, run, headline in zip(labels, runs, headlines, strict=True)
    )
    return RunComparison(
        metric=runs[0].results.primary_metric,
        places=(*sites, *((MEAN_OF_SITES,) if in_mean else ()), UNION),
        in_mean=in_mean,
        runs=columns,
        doubts=tuple(_doubts(runs, labels)),
    )


def print_comparison(comparison: RunComparison, console: Console) -> None:
    """Print the doubts and the table; plain ruled text where the console is not a terminal."""
    is_terminal = console.is_terminal
    if not is_terminal:
        width = 24 + 22 * len(comparison.runs)
        console = Console(file=console.file, width=max(width, 80), no_color=True, highlight=False)
    for doubt in comparison.doubts:
        console.print(Text(f"! {doubt}", style="bold yellow"))
    style = box.SIMPLE_HEAD if is_terminal else box.ASCII
    table = Table(
        box=style, title=f"Federated model, {metric_title(comparison.metric)}", title_justify="left"
    )
    table.add_column("")
    for column in comparison.runs:
        table.add_column(Text(column.label), justify="right", overflow="fold")
    for name, values in [*facts(comparison), *figures(comparison)]:
        # A plain hyphen outside terminals: logs and pipes are not always UTF-8.
        texts = values if is_terminal else [value.replace(MINUS, "-") for value in values]
        table.add_row(Text(name), *(Text(text) for text in texts))
    console.print(table)


def facts(comparison: RunComparison) -> list[tuple[str, list[str]]]:
    """Return what was run, one row for each property with a value for each run."""
    results = [column.run.results for column in comparison.runs]
    return [
        ("algorithm", [shown(item.algorithm) for item in results]),
        ("model", [shown(item.model) for item in results]),
        ("parameters", [f"{item.parameters:,}" for item in results]),
        ("rounds", [f"{item.rounds_closed} of {item.rounds_planned}" for item in results]),
        ("status", [item.status for item in results]),
        ("privacy", [shown(item.privacy) for item in results]),
        ("seed", [str(item.seed) for item in results]),
        ("bytes moved", [data_size(column.traffic_bytes) for column in comparison.runs]),
        ("federated time", [duration(item.time.federated_s) for item in results]),
        ("whole time", [duration(item.time.total_s) for item in results]),
    ]


def figures(comparison: RunComparison) -> list[tuple[str, list[str]]]:
    """Return the primary metric, one row for each test set, then the gain and the worst site."""
    rows = [
        (shown(place), [_cell_text(column.cells.get(place)) for column in comparison.runs])
        for place in comparison.places
    ]
    rows.append(("mean: federated - alone", [_gain_text(column.gain) for column in comparison.runs]))
    rows.append(("worst site", [_worst_text(column.worst) for column in comparison.runs]))
    return rows


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "not tested"
    if cell.value is None:
        return "undefined"
    interval = interval_text(cell.interval, digits=2)
    return figure(cell.value) + (f"\n{interval}" if interval else "")


def _gain_text(gain: ComparisonRecord | None) -> str:
    if gain is None:
        return "not compared"
    if gain.difference is None:
        return "undefined"
    interval = interval_text(gain.interval, with_sign=True, digits=2)
    return signed(gain.difference) + (f"\n{interval}" if interval else "")


def _worst_text(worst: Row | None) -> str:
    if worst is None or worst.federated is None:
        return "none is defined"
    return f"{shown(worst.name, 24)}\n{figure(worst.federated)}"


def _column(
    label: str, run: Run, headline: Headline, places: tuple[Sequence[str], Sequence[str]]
) -> ComparedRun:
    sites, in_mean = places
    rows = {row.name: row for row in headline.rows}
    cells = {name: rows[name].cells["federated"] for name in sites if "federated" in rows[name].cells}
    if in_mean and headline.models:
        values = [rows[name].federated or 0.0 for name in in_mean]
        over = f"mean of {count(len(values), 'site')}"
        cells[MEAN_OF_SITES] = Cell(sum(values) / len(values), denominator=over)
    union = next((row for row in headline.summary if row.role == "union"), None)
    if union is not None and "federated" in union.cells:
        cells[UNION] = union.cells["federated"]
    return ComparedRun(
        label=label,
        run=run,
        cells=cells,
        gain=run.results.comparison("alone", MEAN_OF_SITES),
        worst=headline.worst,
        traffic_bytes=sum(event.bytes_sent + event.bytes_received for event in run.journal.rounds),
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name runs by their folder; with the folder above where that is not unique."""
    paths = [run.folder.resolve() for run in runs]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in paths]
    repeated = Counter(names)
    return [
        f"{shown(name, 40)} ({number})" if repeated[name] > 1 else shown(name, 40)
        for number, name in enumerate(names, start=1)
    ]


def _has_site(run: Run, name: str) -> bool:
    return any(site.name == name for site in run.results.sites)


def _refuse_what_cannot_stand_together(runs: Sequence[Run], labels: Sequence[str]) -> None:
    if len(runs) < 2:
        raise DataError(f"To compare takes two run folders or more, got {len(runs)}. Name another one.")
    first = runs[0].results
    for run, label in zip(runs[1:], labels[1:], strict=True):
        other = run.results
        for what, mine, its in (
            ("primary metric", first.primary_metric, other.primary_metric),
            ("classes", ", ".join(first.classes), ", ".join(other.classes)),
        ):
            if mine != its:
                raise DataError(
                    f"{labels[0]} and {label} cannot be compared: {what} is {mine} in the first and {its} in "
                    "the other. Compare runs of one problem."
                )
    if not any(all(_has_site(run, site.name) for run in runs) for site in first.sites):
        raise DataError(
            "These runs cannot be compared: no site is in all of them, so they were tested on different "
            "cases. Compare runs of one data set and partition."
        )


def _doubts(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    found = []
    for run, label in zip(runs[1:], labels[1:], strict=True):
        found += _different_tests(runs[0], run, (labels[0], label))
    for run, label in zip(runs, labels, strict=True):
        if run.results.status == "stopped":
            found.append(f"{label} stopped early: its figures, if any, describe an unfinished model.")
        if not run.results.evaluations:
            found.append(f"{label} has no figures: no model was tested.")
    seeds = {run.results.seed for run in runs}
    if len(seeds) > 1:
        found.append("The runs have different seeds: part of every difference is chance.")
    return found


def _different_tests(first: Run, other: Run, labels: tuple[str, str]) -> list[str]:
    """Say what speaks against both runs having been tested on the same cases."""
    both = f"{labels[0]} and {labels[1]}"
    found = []
    mine = {site.name: site for site in first.results.sites}
    its = {site.name: site for site in other.results.sites}
    if mine.keys() != its.keys():
        extra = sorted(mine.keys() ^ its.keys())
        names = enumeration([shown(name) for name in extra])
        found.append(f"{both} have different sites ({names} not in both): mean and union do not compare.")
    changed = [
        f"{shown(name)} {mine[name].cases.test} and {its[name].cases.test}"
        for name in mine
        if name in its and mine[name].cases.test != its[name].cases.test
    ]
    if changed:
        found.append(f"{both} have different test sets (cases at {enumeration(changed)}): do not compare.")
    for part in ("data", "partition"):
        if _simulated(first, part) != _simulated(other, part):
            found.append(f"{both} differ in simulation.{part}: their test cases may differ.")
    return found


def _simulated(run: Run, part: str) -> object:
    simulation = run.configuration.get("simulation")
    return simulation.get(part) if isinstance(simulation, dict) else None


def _write(comparison: RunComparison, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    values = {column.label: column.cells for column in comparison.runs if column.cells}
    plot = compare_plot(comparison.metric, comparison.places, values)
    page = render_template(
        "compare.html.j2",
        comparison=comparison,
        facts=facts(comparison),
        figures=figures(comparison),
        plot=plot,
    )
    write_bytes(out / "compare.png", plot.png)
    write_bytes(out / "compare.html", page.encode("utf-8"))
