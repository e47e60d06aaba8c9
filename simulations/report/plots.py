"""All plots of a run, in the order of the page."""

from fedcad.simulations.report.canvas import Plot
from fedcad.simulations.report.plot_headline import headline_plots
from fedcad.simulations.report.plot_holdings import holdings_plots
from fedcad.simulations.report.plot_learning import learning_plots
from fedcad.simulations.report.plot_quality import quality_plots
from fedcad.simulations.report.plot_rounds import round_plots
from fedcad.simulations.report.run_folder import Run


def draw_plots(run: Run) -> dict[str, Plot]:
    """Draw every plot for which the run has data, by name."""
    plots = [
        *headline_plots(run.results),
        *holdings_plots(run.results),
        *learning_plots(run),
        *quality_plots(run.results),
        *round_plots(run),
    ]
    return {plot.name: plot for plot in plots}
