"""Pictures are PNG, the same for the same data, and leave no trace in matplotlib's settings."""

import io

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fedcad.simulations.report import canvas


def simple() -> Figure:
    figure = canvas.new_figure(3.0, 2.0)
    figure.subplots().plot([0, 1], [0, 1])
    return figure


def test_draw_gives_a_png_of_the_promised_shape() -> None:
    plot = canvas.draw("line", "A line", "A line that rises.", simple)
    image = Image.open(io.BytesIO(plot.png))
    image.verify()
    assert image.format == "PNG"
    assert (plot.width, plot.height) == (300, 200)
    assert image.width / image.height == pytest.approx(1.5, abs=0.01)


def test_same_data_same_bytes_whatever_the_users_settings() -> None:
    first = canvas.draw("line", "", "", simple).png
    with mpl.rc_context({"lines.linewidth": 9.0, "text.color": "red", "figure.dpi": 30}):
        assert canvas.draw("line", "", "", simple).png == first


def test_settings_are_back_afterwards() -> None:
    before = dict(mpl.rcParams)
    canvas.draw("line", "", "", simple)
    assert dict(mpl.rcParams) == before


def test_hostile_labels_are_drawn_as_they_are() -> None:
    def make() -> Figure:
        figure = canvas.new_figure(3.0, 2.0)
        figure.subplots().set_title("$\\frac{1}{ $ _^{")
        canvas.key_above(figure, [(Line2D([], []), "_hidden"), (Line2D([], []), "$x")])
        assert len(figure.legends[0].get_texts()) == 2
        return figure

    canvas.draw("hostile", "", "", make)


@given(panels=st.integers(min_value=1, max_value=200))
def test_grids_hold_all_panels_and_no_empty_row(panels: int) -> None:
    rows, columns = canvas.grid_shape(panels)
    assert rows * columns >= panels > (rows - 1) * columns
    assert columns <= 6


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", canvas.SITE_COLOURS)
def test_site_colours_are_legible_as_text(colour: str) -> None:
    """Contrast of at least 4.5 on white (WCAG 2.2, 1.4.3)."""
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_without_a_warning() -> None:
    def make() -> Figure:
        figure = canvas.new_figure(3.0, 2.0)
        figure.subplots().set_title("\u65e5\u672c \u0639\u0631")
        return figure

    canvas.draw("scripts", "", "", make)
