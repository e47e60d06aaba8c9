"""Learning curves: validation by model version, one small panel for each site."""

from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedcad.simulations.report.canvas import (
    MODEL_COLOURS,
    SOFT,
    Plot,
    draw,
    key_above,
    small_multiples,
    whole_numbers,
)
from fedcad.simulations.report.records import ValidationEvent, ValidationFigures
from fedcad.simulations.report.run_folder import Journal, Run
from fedcad.simulations.report.wording import figure as figure_text
from fedcad.simulations.report.wording import metric_label, shown

Reading = Callable[[ValidationFigures], float | None]

_STYLES: dict[str, Any] = {"federated": "-", "alone": "--", "pooled": ":"}


def learning_plots(run: Run) -> list[Plot]:
    """Draw the primary metric and the loss by version; nothing where no validation was recorded."""
    if not run.journal.validations:
        return []
    metric = run.results.primary_metric
    return [
        _plot(
            run, "learning-metric", f"Validation {metric_label(metric)}", lambda figures: figures.macro_auroc
        ),
        _plot(run, "learning-loss", "Validation loss", lambda figures: figures.loss),
    ]


def _plot(run: Run, name: str, quantity: str, read: Reading) -> Plot:
    names = _panel_names(run)
    last = run.journal.validations[-1]
    finals = {site: _of_site(last, site, read) for site in names}
    ends = [f"{shown(site)} {'none' if end is None else figure_text(end)}" for site, end in finals.items()]
    alt = f"{quantity} by version, a panel for each site and their union. At the last version: "
    return draw(name, quantity, alt + ", ".join(ends) + ".", partial(_figure, run, names, quantity, read))


def _panel_names(run: Run) -> list[str]:
    seen = {name for event in run.journal.validations for name in event.sites}
    known = [site.name for site in run.results.sites if site.name in seen]
    return ["union", *known, *sorted(seen - set(known))]


def _of_site(event: ValidationEvent, site: str, read: Reading) -> float | None:
    figures = event.union if site == "union" else event.sites.get(site)
    return None if figures is None else read(figures)


def _figure(run: Run, names: list[str], quantity: str, read: Reading) -> Figure:
    figure, axes_of = small_multiples(run.results, names, height=0.62)
    drawn: set[str] = set()
    for axes, site in zip(axes_of, names, strict=True):
        drawn |= _panel(axes, run, site, read)
    figure.supxlabel("Version of the model (0 is untrained)", fontsize=8.5, color=SOFT)
    figure.supylabel(quantity, fontsize=8.5, color=SOFT)
    keys = [
        (Line2D([], [], color=MODEL_COLOURS[model], linestyle=style, linewidth=1.8), model)
        for model, style in _STYLES.items()
        if model in drawn
    ]
    keys.append(
        (Line2D([], [], color=SOFT, linewidth=0.9), f"selected version ({run.results.selected_version})")
    )
    key_above(figure, keys)
    return figure


def _panel(axes: Axes, run: Run, site: str, read: Reading) -> set[str]:
    """Draw one site's curves and return which models had any."""
    journals = {
        "pooled": run.baselines.get("pooled", Journal()),
        "alone": run.baselines.get(f"alone-{site}", Journal()),
        "federated": run.journal,
    }
    axes.axvline(run.results.selected_version, color=SOFT, linewidth=0.9, alpha=0.7)
    axes.grid(True, axis="y")
    drawn = set()
    for model, journal in journals.items():
        points = [(event.version, _of_site(event, site, read)) for event in journal.validations]
        defined = [(version, value) for version, value in points if value is not None]
        if not defined:
            continue
        drawn.add(model)
        wide = 1.9 if model == "federated" else 1.2
        axes.plot(
            *zip(*defined, strict=True), color=MODEL_COLOURS[model], linestyle=_STYLES[model], linewidth=wide
        )
    if "federated" not in drawn:
        axes.text(0.5, 0.5, "undefined here", transform=axes.transAxes, ha="center", color=SOFT)
    whole_numbers(axes, 5)
    return drawn
