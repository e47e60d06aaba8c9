"""What all plots share: paper, ink, colours, and PNG bytes without any global plotting state.

Colours are those of Okabe and Ito (2008, Color Universal Design) for the models and of Paul Tol's *muted*
scheme (2021, SRON/EPS/TN/09-002, figure 5) for the sites, darkened until
legible as text; status and class also carry a sign or a line style, so that nothing depends on colour alone.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from fedcad.simulations.report.records import Results
from fedcad.simulations.report.wording import shown

INK = "#1f2328"
SOFT = "#6a7280"
FAINT = "#d8dce2"
PAPER = "#ffffff"

MODEL_COLOURS = {"federated": "#0072B2", "alone": "#D55E00", "ensemble": "#CC79A7", "pooled": "#55595f"}
MODEL_MARKERS = {"federated": "o", "alone": "s", "ensemble": "D", "pooled": "^"}
SITE_COLOURS = (
    "#332288",
    "#117733",
    "#AA4499",
    "#0B6E94",
    "#746A00",
    "#882255",
    "#24766C",
    "#B0475A",
    "#8A5A1F",
)
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CLASS_LINES = ("-", "--", "-.", ":")

WIDTH = 9.2
"""Inches across a full-width plot; 100 CSS pixels to the inch in the page."""
_DOTS_PER_INCH = 170


@dataclass(frozen=True)
class Plot:
    """One finished plot.

    Attributes:
        name: File name without suffix.
        title: Short title.
        alt: What the picture shows, for those who cannot see it.
        png: The picture.
        width: Width in CSS pixels.
        height: Height in CSS pixels.
    """

    name: str
    title: str
    alt: str
    png: bytes
    width: int
    height: int


def _settings() -> Any:
    """Matplotlib's own defaults, whatever the user's matplotlibrc says, with ours on top."""
    defaults = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    return defaults | {
        "font.family": ["DejaVu Sans"],
        "font.size": 9.0,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 6.0,
        "axes.labelsize": 8.5,
        "axes.labelcolor": SOFT,
        "axes.edgecolor": FAINT,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": SOFT,
        "ytick.labelcolor": SOFT,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "xtick.major.size": 3.0,
        "ytick.major.size": 0.0,
        "grid.color": "#eceef1",
        "grid.linewidth": 0.8,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
    }


@contextmanager
def paper() -> Iterator[None]:
    """Set the drawing style for the block only; whatever was set before is back afterwards."""
    with mpl.rc_context(_settings()):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches, with constrained layout, on the Agg canvas."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.05))
    FigureCanvasAgg(figure)
    return figure


def draw(name: str, title: str, alt: str, make: Callable[[], Figure]) -> Plot:
    """Draw a figure in our style and return it as a PNG.

    Guarantees:
        The same data gives the same bytes with the same version of matplotlib: no date, no version in it.
    """
    with paper(), warnings.catch_warnings():
        # A name in a script that the font lacks: tables and alternative text have it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = make()
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    width, height = figure.get_size_inches()
    return Plot(name, title, alt, stream.getvalue(), round(width * 100), round(height * 100))


def site_colour(index: int) -> str:
    """Return the colour of the site at a place in the results; the same in every plot of a run."""
    return SITE_COLOURS[index % len(SITE_COLOURS)]


def class_style(index: int) -> dict[str, Any]:
    """Return colour and line style of the class at a place in the results."""
    return {
        "color": CLASS_COLOURS[index % len(CLASS_COLOURS)],
        "linestyle": CLASS_LINES[index % len(CLASS_LINES)],
    }


def grid_shape(panels: int, columns: int = 4) -> tuple[int, int]:
    """Return rows and columns of small multiples, evenly filled; more columns where there are many panels."""
    most = columns + (panels > 12) + (panels > 25)
    rows = max(-(-panels // most), 1)
    return rows, max(-(-panels // rows), 1)


def small_multiples(
    results: Results, names: Sequence[str], *, height: float, columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel for each test set, in reading order.

    Args:
        results: Where the sites' places, and so their colours, come from.
        names: Sites or ``union``, one for each panel.
        height: Height of a panel as a share of its width.
        columns: Columns for up to twelve panels.
    """
    rows, columns = grid_shape(len(names), columns)
    panel_width = min((WIDTH - 0.5) / columns, 3.4)
    figure = new_figure(WIDTH, 0.75 + rows * (panel_width * height + 0.35))
    made: list[Axes] = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for spare in made[len(names) :]:
        spare.set_visible(False)
    places = {site.name: index for index, site in enumerate(results.sites)}
    for index, (axes, name) in enumerate(zip(made, names, strict=False)):
        axes.set_title(shown(name, 20), color=site_colour(places[name]) if name in places else INK)
        axes.tick_params(labelbottom=index + columns >= len(names))
    return figure, made[: len(names)]


def key_above(figure: Figure, entries: Sequence[tuple[Artist, str]], columns: int = 6) -> None:
    """Draw one colour key for the whole figure above its panels."""
    # An invisible character first: matplotlib leaves out entries whose label starts with an underscore.
    labels = [f"\N{ZERO WIDTH SPACE}{label}" for _, label in entries]
    handles = [artist for artist, _ in entries]
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, handlelength=1.8, columnspacing=1.6
    )


def whole_numbers(axes: Axes, most: int = 10) -> None:
    """Put the ticks of the horizontal axis, at most so many, on whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def colour_site_labels(axes: Axes, results: Results, names: Sequence[str]) -> None:
    """Write the names along the vertical axis in the colours of their sites; others in ink, bold."""
    places = {site.name: index for index, site in enumerate(results.sites)}
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(site_colour(places[name]) if name in places else INK)
        label.set_fontweight("normal" if name in places else "bold")
        label.set_fontsize(9)
