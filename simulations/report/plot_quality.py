"""ROC, calibration and confusion of the federated model, one small panel for each test set."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedcad.simulations.report.canvas import (
    FAINT,
    INK,
    MODEL_COLOURS,
    PAPER,
    SOFT,
    Plot,
    class_style,
    draw,
    grid_shape,
    key_above,
    small_multiples,
)
from fedcad.simulations.report.plot_holdings import SHARE_COLOURS
from fedcad.simulations.report.records import Evaluation, Results
from fedcad.simulations.report.wording import count, shown


def quality_plots(results: Results) -> list[Plot]:
    """Draw the three families; nothing where the federated model was not tested."""
    tested = _tested(results)
    if not tested:
        return []
    places = ", ".join(shown(item.on) for item in tested)
    sets = f"a panel for each test set: {places}"
    return [
        draw("roc", "ROC by class and site", f"ROC curves by class, {sets}. {_areas(tested, results)}",
             partial(_roc_figure, tested, results)),
        draw("calibration", "Calibration", f"Accuracy against confidence, {sets}.",
             partial(_calibration_figure, tested, results)),
        draw("confusion", "Confusion", f"Counts by true and predicted class, {sets}. {_right(tested)}",
             partial(_confusion_figure, tested, results)),
    ]  # fmt: skip


def _tested(results: Results) -> list[Evaluation]:
    places = [*results.joined_places, *(site.name for site in results.sites)]
    found = (results.evaluation("federated", place) for place in places)
    return [item for item in found if item is not None]


def _auroc(evaluation: Evaluation, name: str) -> float | None:
    metric = evaluation.metrics.get(f"auroc_{name}")
    return None if metric is None else metric.value


def _areas(tested: list[Evaluation], results: Results) -> str:
    said = []
    for item in tested:
        figures = [(name, _auroc(item, name)) for name in results.classes]
        areas = [f"{shown(name)} {value:.2f}" for name, value in figures if value is not None]
        said.append(f"{shown(item.on)}: {', '.join(areas) or 'no area recorded'}")
    return "AUROC " + "; ".join(said) + "."


def _right(tested: list[Evaluation]) -> str:
    said = []
    for item in tested:
        matrix = _matrix(item)
        if matrix.size:
            said.append(f"{shown(item.on)}: {int(np.trace(matrix))} of {int(matrix.sum())} cases right")
    return "; ".join(said) + "."


def _roc_figure(tested: list[Evaluation], results: Results) -> Figure:
    figure, axes_of = small_multiples(results, [item.on for item in tested], height=0.95)
    for axes, item in zip(axes_of, tested, strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0)
        for index, name in enumerate(results.classes):
            curve = item.curves.roc.get(name)
            if curve is not None:
                axes.plot(curve.fpr, curve.tpr, linewidth=1.6, **class_style(index))
            _area_label(axes, index, _auroc(item, name), drawn=curve is not None)
        _unit_square(axes)
        if not item.curves.roc:
            axes.text(0.5, 0.62, "undefined here", ha="center", color=SOFT)
    figure.supxlabel("False positive rate", fontsize=8.5, color=SOFT)
    figure.supylabel("True positive rate", fontsize=8.5, color=SOFT)
    keys = [
        (Line2D([], [], linewidth=1.8, **class_style(index)), shown(name, 20))
        for index, name in enumerate(results.classes)
    ]
    key_above(figure, [*keys, (Line2D([], [], color=FAINT), "chance; numbers are AUROC")])
    return figure


def _area_label(axes: Axes, index: int, area: float | None, *, drawn: bool) -> None:
    """Write the area of up to six classes in the empty corner below the diagonal."""
    if area is None or not drawn or index >= 6:
        return
    colour = class_style(index)["color"]
    axes.text(0.98, 0.04 + 0.11 * index, f"{area:.2f}", ha="right", fontsize=8, color=colour, weight="bold")


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    axes.set_xticklabels(["0", "½", "1"])
    axes.set_yticklabels(["0", "½", "1"])
    axes.grid(True, axis="both")


def _calibration_figure(tested: list[Evaluation], results: Results) -> Figure:
    figure, axes_of = small_multiples(results, [item.on for item in tested], height=0.95)
    for axes, item in zip(axes_of, tested, strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0)
        _calibration_panel(axes, item)
        _unit_square(axes)
    figure.supxlabel("Confidence in the predicted class", fontsize=8.5, color=SOFT)
    figure.supylabel("Share that was right", fontsize=8.5, color=SOFT)
    dot = Line2D([], [], color=MODEL_COLOURS["federated"], marker="o", linewidth=1.2)
    key_above(
        figure, [(dot, "bin of cases (area: number of cases)"), (Line2D([], [], color=FAINT), "calibrated")]
    )
    return figure


def _calibration_panel(axes: Axes, item: Evaluation) -> None:
    bins = item.curves.calibration
    rows = zip(bins.confidence, bins.accuracy, bins.count, strict=False)
    filled = [(x, y, number) for x, y, number in rows if x is not None and y is not None and number > 0]
    if not filled:
        axes.text(0.5, 0.5, "no cases", ha="center", color=SOFT)
        return
    confidence, accuracy, number = (np.array(column) for column in zip(*filled, strict=True))
    axes.plot(confidence, accuracy, color=MODEL_COLOURS["federated"], linewidth=1.2, alpha=0.8)
    sizes = 8 + 90 * number / number.max()
    axes.scatter(
        confidence, accuracy, s=sizes, color=MODEL_COLOURS["federated"], linewidths=0, clip_on=False, zorder=3
    )
    axes.text(0.0, 0.93, count(int(number.sum()), "case"), fontsize=8, color=SOFT)


def _matrix(item: Evaluation) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    size = len(item.curves.confusion.classes)
    return np.array(item.curves.confusion.counts, dtype=np.int64).reshape(size, size)


def _confusion_figure(tested: list[Evaluation], results: Results) -> Figure:
    figure, axes_of = small_multiples(results, [item.on for item in tested], height=0.8)
    for index, (axes, item) in enumerate(zip(axes_of, tested, strict=True)):
        _confusion_panel(axes, item, is_first_column=index % grid_shape(len(tested))[1] == 0)
    figure.supxlabel(
        "Predicted class (shade: share of the true class; n: cases of it)", fontsize=8.5, color=SOFT
    )
    figure.supylabel("True class", fontsize=8.5, color=SOFT)
    return figure


def _confusion_panel(axes: Axes, item: Evaluation, *, is_first_column: bool) -> None:
    matrix, names = _matrix(item), item.curves.confusion.classes
    if not matrix.size:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=SOFT)
        return
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    axes.imshow(share, cmap=SHARE_COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(matrix):
        empty = totals[row, 0] == 0
        ink = SOFT if number == 0 else PAPER if share[row, column] > 0.55 else INK
        axes.text(
            column, row, "" if empty else f"{number:,}", ha="center", va="center", fontsize=8.5, color=ink
        )
    for row, total in enumerate(totals[:, 0]):
        axes.text(len(names) - 0.42, row, f"n {total:,}", va="center", fontsize=7.5, color=SOFT)
    short = [shown(name, 9) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), short)
    axes.tick_params(length=0, labelleft=is_first_column)
    axes.set_xlim(-0.5, len(names) + 0.15)
    axes.spines[:].set_visible(False)
