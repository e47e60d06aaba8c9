"""The headline picture: federated beside alone, ensemble and pooled at every site, with intervals."""

from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedcad.simulations.report.canvas import (
    FAINT,
    MODEL_COLOURS,
    MODEL_MARKERS,
    SOFT,
    WIDTH,
    Plot,
    colour_site_labels,
    draw,
    key_above,
    new_figure,
)
from fedcad.simulations.report.conclusions import verdict_of
from fedcad.simulations.report.headline import Headline, Row, headline_of, why_undefined
from fedcad.simulations.report.records import Interval, Results
from fedcad.simulations.report.wording import figure as written
from fedcad.simulations.report.wording import metric_label, metric_title, shown, signed

_VERDICT_COLOURS = {"gain": "#0072B2", "loss": "#D55E00", "no evidence": "#55595f", "no interval": "#55595f"}


def headline_plots(results: Results) -> list[Plot]:
    """Draw the headline; nothing where no model was tested."""
    headline = headline_of(results)
    if not headline.models:
        return []
    said = [f"{shown(row.name)}: {_said(row)}" for row in headline.all_rows]
    alt = f"Dots with intervals, {metric_label(results.primary_metric)} on each test set. " + "; ".join(said)
    title = "Federated against the alternatives"
    return [draw("headline", title, alt + ".", partial(_figure, headline, results))]


def _said(row: Row) -> str:
    figures = [
        f"{model} {written(cell.value)}" if cell.value is not None else f"{model} undefined"
        for model, cell in row.cells.items()
    ]
    if row.gain is not None and row.gain.difference is not None:
        figures.append(f"federated minus alone {signed(row.gain.difference)}")
    return ", ".join(figures) or "not tested"


def _figure(headline: Headline, results: Results) -> Figure:
    rows = headline.all_rows
    step = 0.5 if len(rows) <= 12 else 0.36
    figure = new_figure(WIDTH, 1.25 + step * len(rows))
    has_gain = any(row.gain is not None for row in rows)
    if has_gain:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1.0])
        _draw_gains(right, rows)
    else:
        left = figure.subplots()
    for position, row in enumerate(rows):
        _draw_row(left, position, row, headline.models)
    left.set_yticks(range(len(rows)), [_label(row) for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_title(metric_title(results.primary_metric))
    left.grid(True, axis="x")
    _separate(figure, len(headline.rows), len(headline.summary))
    colour_site_labels(left, results, [row.name for row in rows])
    keys = [
        (
            Line2D(
                [], [], color=MODEL_COLOURS[name], marker=MODEL_MARKERS[name], linewidth=1.4, markersize=5
            ),
            name,
        )
        for name in headline.models
    ]
    if has_gain:
        hollow = Line2D([], [], color=SOFT, marker="o", markerfacecolor="white", markersize=6, linewidth=2)
        keys.append((hollow, "hollow: interval contains 0 or is absent"))
    key_above(figure, keys)
    return figure


def _label(row: Row) -> str:
    return {"external": f"{shown(row.name, 20)} (external)"}.get(row.role, shown(row.name, 24))


def _separate(figure: Figure, sites: int, summaries: int) -> None:
    """Rule off the sites from mean and union."""
    for axes in figure.axes if summaries else ():
        axes.axhline(sites - 0.5, color=FAINT, linewidth=1.2)


def _draw_row(axes: Axes, position: int, row: Row, models: tuple[str, ...]) -> None:
    spread = 0.64 / max(len(models), 1)
    for index, model in enumerate(models):
        cell = row.cells.get(model)
        if cell is None or cell.value is None:
            continue
        height = position + (index - (len(models) - 1) / 2) * spread
        _dot(axes, cell.value, cell.interval, height, model)
    if row.federated is None:
        # In axes coordinates, so that the sentence starts at the left whatever the scale is.
        axes.text(
            0.01,
            position,
            f"undefined: {shown(why_undefined(row), 62)}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=SOFT,
            style="italic",
        )


def _dot(axes: Axes, value: float, interval: Interval, height: float, model: str) -> None:
    colour = MODEL_COLOURS[model]
    if interval is not None:
        axes.plot(interval, [height, height], color=colour, linewidth=1.4, alpha=0.55)
    size = 6.0 if model == "federated" else 4.4
    axes.plot([value], [height], marker=MODEL_MARKERS[model], color=colour, markersize=size, linestyle="none")


def _draw_gains(axes: Axes, rows: tuple[Row, ...]) -> None:
    """Draw federated minus alone with its interval, around a line at 0."""
    axes.axvline(0, color=SOFT, linewidth=1.0)
    for position, row in enumerate(rows):
        gain = row.gain
        if gain is None or gain.difference is None:
            if row.role in ("training", "mean"):
                axes.text(0.02, position, "undefined", transform=axes.get_yaxis_transform(), va="center",
                          fontsize=8, color=SOFT, style="italic")  # fmt: skip
            continue
        colour = _VERDICT_COLOURS[verdict_of(gain.interval)]
        if gain.interval is not None:
            axes.plot(gain.interval, [position, position], color=colour, linewidth=2.0, alpha=0.6)
        filled = verdict_of(gain.interval) in ("gain", "loss")
        face = colour if filled else "white"
        axes.plot([gain.difference], [position], marker="o", markersize=6, color=colour, markerfacecolor=face)
    axes.set_title("Federated \N{MINUS SIGN} alone")
    axes.grid(True, axis="x")
    axes.margins(x=0.12)
