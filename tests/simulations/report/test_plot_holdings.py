from fedcad.simulations.report.plot_holdings import holdings_plots
from fedcad.simulations.report.records import Acquisition
from fedcad.simulations.report.run_folder import Run


def test_alt_text_counts_patients_and_cases_over_all_splits(five: Run) -> None:
    (plot,) = holdings_plots(five.results)
    assert "kigali: 160 patients, cases normal 91, opacity 51, nodule 33" in plot.alt
    assert "quito: 60 patients, cases normal 65, opacity 0, nodule 0" in plot.alt


def test_thirty_sites_have_room(thirty: Run) -> None:
    (plot,) = holdings_plots(thirty.results)
    assert plot.height / 30 >= 30


def test_no_sites_and_no_vendors(five: Run) -> None:
    assert holdings_plots(five.results.model_copy(update={"sites": ()})) == []
    bare = tuple(site.model_copy(update={"acquisition": Acquisition()}) for site in five.results.sites)
    assert holdings_plots(five.results.model_copy(update={"sites": bare}))[0].png
