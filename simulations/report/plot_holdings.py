"""Who holds what: cases by class, patients by split and cases by vendor, a row for each site."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fedcad.simulations.report.canvas import (
    FAINT,
    INK,
    PAPER,
    SOFT,
    WIDTH,
    Plot,
    colour_site_labels,
    draw,
    new_figure,
)
from fedcad.simulations.report.records import Results, SiteRecord
from fedcad.simulations.report.wording import count, shown

SHARE_COLOURS = LinearSegmentedColormap.from_list("share", ["#f5f7fa", "#9cc3e4", "#0b4f8a"])
_SPLITS = {"train": "#1d5f97", "validation": "#7fb0d8", "test": "#e0a35c"}
_VENDORS = ("#4f5d75", "#88a096", "#c9ada7", "#bbc2cc", "#a98467", "#84a5c0", "#d8c99b", "#7b6d8d")


def holdings_plots(results: Results) -> list[Plot]:
    """Draw who holds what; nothing where there are no sites."""
    if not results.sites:
        return []
    said = [
        f"{shown(site.name)}: {count(site.patients.total, 'patient')}, cases "
        + ", ".join(f"{shown(name)} {_cases(site, name)}" for name in results.classes)
        for site in results.sites
    ]
    alt = "A row for each site: cases by class, patients by split, share of cases by vendor. " + "; ".join(
        said
    )
    return [draw("who-holds-what", "Who holds what", alt + ".", partial(_figure, results))]


def _cases(site: SiteRecord, name: str) -> int:
    return sum(split.get(name, 0) for split in (site.labels.train, site.labels.validation, site.labels.test))


def _figure(results: Results) -> Figure:
    rows = len(results.sites)
    figure = new_figure(WIDTH, 1.15 + 0.34 * rows)
    ratios = [min(0.9 * len(results.classes), 5.0), 3.0, 2.9]
    classes, patients, vendors = figure.subplots(1, 3, sharey=True, width_ratios=ratios)
    _class_matrix(classes, results)
    _patient_bars(patients, results)
    _vendor_bars(vendors, results)
    classes.set_yticks(range(rows), [_label(site) for site in results.sites])
    colour_site_labels(classes, results, [site.name for site in results.sites])
    classes.set_ylim(rows - 0.5, -0.5)
    return figure


def _label(site: SiteRecord) -> str:
    return shown(site.name, 22) + (" (external)" if site.role == "external" else "")


def _class_matrix(axes: Axes, results: Results) -> None:
    counts = np.array([[_cases(site, name) for name in results.classes] for site in results.sites])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap=SHARE_COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(counts):
        dark = share[row, column] > 0.55
        ink = SOFT if number == 0 else PAPER if dark else INK
        axes.text(column, row, f"{number:,}", ha="center", va="center", fontsize=8.5, color=ink)
    names = [shown(name, 14) for name in results.classes]
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 11 else 20)
    axes.set_title("Cases by class")
    _bare(axes)


def _patient_bars(axes: Axes, results: Results) -> None:
    left = np.zeros(len(results.sites))
    for split, colour in _SPLITS.items():
        width = np.array([getattr(site.patients, split) for site in results.sites])
        axes.barh(range(len(width)), width, left=left, height=0.62, color=colour, label=split)
        left += width
    for row, total in enumerate(left):
        axes.text(total, row, f" {int(total):,}", va="center", fontsize=8, color=SOFT)
    axes.set_xlim(0, max(left.max(), 1) * 1.16)
    axes.set_title("Patients")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, handlelength=0.9, columnspacing=0.9)
    _bare(axes)
    axes.set_xticks([])


def _vendor_bars(axes: Axes, results: Results) -> None:
    vendors = sorted({name for site in results.sites for name in site.acquisition.vendor})
    left = np.zeros(len(results.sites))
    for index, name in enumerate(vendors):
        colour = _VENDORS[index % len(_VENDORS)]
        width = np.array([_vendor_share(site, name) for site in results.sites])
        axes.barh(
            range(len(width)), width, left=left, height=0.62, color=colour, edgecolor=PAPER, linewidth=0.6
        )
        left += width
    for row, site in enumerate(results.sites):
        axes.text(1.03, row, _vendor_label(site), va="center", fontsize=8, color=SOFT)
    axes.set_xlim(0, 2.0)
    axes.set_title("Vendors")
    _bare(axes)
    axes.set_xticks([])


def _vendor_label(site: SiteRecord) -> str:
    """Name the vendor of most cases; without such a majority, count the vendors."""
    names = sorted(site.acquisition.vendor)
    majority = [name for name in names if _vendor_share(site, name) > 0.5]
    return shown(majority[0], 18) if majority else count(len(names), "vendor") if names else "not recorded"


def _vendor_share(site: SiteRecord, name: str) -> float:
    return site.acquisition.vendor.get(name, 0) / max(sum(site.acquisition.vendor.values()), 1)


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, color=FAINT)
