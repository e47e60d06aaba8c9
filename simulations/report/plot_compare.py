"""The federated models of several runs, a row for each test set."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedcad.simulations.report.canvas import CLASS_COLOURS, SOFT, WIDTH, Plot, draw, key_above, new_figure
from fedcad.simulations.report.headline import Cell
from fedcad.simulations.report.wording import figure as written
from fedcad.simulations.report.wording import metric_label, metric_title, shown

_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def compare_plot(metric: str, places: Sequence[str], values: Mapping[str, Mapping[str, Cell]]) -> Plot:
    """Draw dots with intervals.

    Args:
        metric: The primary metric.
        places: Test sets from above to below.
        values: By label of the run and test set.
    """
    said = []
    for place in places:
        defined = [(label, _value(cells, place)) for label, cells in values.items()]
        texts = [f"{shown(label)} {written(value)}" for label, value in defined if value is not None]
        said.append(f"{shown(place)}: {', '.join(texts) or 'undefined'}")
    alt = f"Dots with intervals, {metric_label(metric)} of the federated model of each run. " + "; ".join(
        said
    )
    return draw("compare", "Runs side by side", alt + ".", partial(_figure, metric, places, values))


def _value(cells: Mapping[str, Cell], place: str) -> float | None:
    cell = cells.get(place)
    return None if cell is None else cell.value


def _figure(metric: str, places: Sequence[str], values: Mapping[str, Mapping[str, Cell]]) -> Figure:
    step = max(0.34, 0.16 + 0.12 * len(values))
    figure = new_figure(WIDTH, 1.2 + step * len(places))
    axes = figure.subplots()
    for row, place in enumerate(places):
        for index, cells in enumerate(values.values()):
            height = row + (index - (len(values) - 1) / 2) * 0.7 / max(len(values), 2)
            _dot(axes, cells.get(place), height, index)
        if all(_value(cells, place) is None for cells in values.values()):
            axes.text(0.01, row, "undefined in every run", transform=axes.get_yaxis_transform(), va="center",
                      fontsize=8, color=SOFT, style="italic")  # fmt: skip
    axes.set_yticks(range(len(places)), [shown(place, 24) for place in places])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_title(metric_title(metric))
    axes.grid(True, axis="x")
    key_above(figure, [(_key(index), shown(label, 28)) for index, label in enumerate(values)], columns=3)
    return figure


def _colour(index: int) -> str:
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def _key(index: int) -> Line2D:
    marker = _MARKERS[index % len(_MARKERS)]
    return Line2D([], [], color=_colour(index), marker=marker, markersize=5, linewidth=1.4)


def _dot(axes: Axes, cell: Cell | None, height: float, index: int) -> None:
    if cell is None or cell.value is None:
        return
    if cell.interval is not None:
        axes.plot(cell.interval, [height, height], color=_colour(index), linewidth=1.4, alpha=0.55)
    marker = _MARKERS[index % len(_MARKERS)]
    axes.plot([cell.value], [height], marker=marker, color=_colour(index), markersize=5, linestyle="none")
