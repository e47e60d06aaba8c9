"""Every plot that a run has data for is a valid picture with an alternative text."""

import io

from PIL import Image

from fedcad.simulations.report.plot_headline import headline_plots
from fedcad.simulations.report.plots import draw_plots
from fedcad.simulations.report.run_folder import Run


def test_stopped_run_has_the_plots_it_has_data_for(stopped: Run) -> None:
    plots = draw_plots(stopped)
    assert set(plots) == {
        "who-holds-what", "learning-metric", "learning-loss", "participation", "time-and-bytes",
    }  # fmt: skip
    for name, plot in plots.items():
        Image.open(io.BytesIO(plot.png)).verify()
        assert plot.name == name
        assert plot.alt.endswith(".")


def test_single_site_without_baselines(lonely: Run) -> None:
    assert len(draw_plots(lonely)) == 9


def test_same_run_same_pictures(five: Run) -> None:
    assert headline_plots(five.results)[0].png == headline_plots(five.results)[0].png
