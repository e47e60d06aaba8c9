from fedcad.simulations.report.plot_quality import quality_plots
from fedcad.simulations.report.records import Curves
from fedcad.simulations.report.run_folder import Run


def test_three_families_with_figures_in_the_alt_texts(five: Run) -> None:
    roc, calibration, confusion = quality_plots(five.results)
    assert "quito: no area recorded" in roc.alt
    matrix = five.results.evaluation("federated", "osaka").curves.confusion.counts  # type: ignore[union-attr]
    right = sum(row[index] for index, row in enumerate(matrix))
    assert f"osaka: {right} of {sum(map(sum, matrix))} cases right" in confusion.alt
    assert "a panel for each test set: union, kigali" in calibration.alt


def test_evaluations_without_curves_are_drawn_empty(five: Run) -> None:
    bare = tuple(item.model_copy(update={"curves": Curves()}) for item in five.results.evaluations[:2])
    results = five.results.model_copy(update={"evaluations": bare})
    assert [plot.name for plot in quality_plots(results)] == ["roc", "calibration", "confusion"]


def test_nothing_tested_nothing_drawn(stopped: Run) -> None:
    assert quality_plots(stopped.results) == []
