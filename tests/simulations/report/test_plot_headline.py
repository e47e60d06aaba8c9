from fedcad.simulations.report.plot_headline import headline_plots
from fedcad.simulations.report.run_folder import Run


def test_alt_text_says_all_figures_and_what_is_undefined(five: Run) -> None:
    (plot,) = headline_plots(five.results)
    assert "quito: federated undefined, alone undefined" in plot.alt
    assert "mean of sites: federated 0." in plot.alt
    assert "federated minus alone " in plot.alt


def test_thirty_sites_have_room(thirty: Run) -> None:
    (plot,) = headline_plots(thirty.results)
    assert plot.height / 32 >= 34


def test_nothing_to_draw_without_evaluations(stopped: Run) -> None:
    assert headline_plots(stopped.results) == []
