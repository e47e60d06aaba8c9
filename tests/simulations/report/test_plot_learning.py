import dataclasses

from fedcad.simulations.report.plot_learning import learning_plots
from fedcad.simulations.report.run_folder import Journal, Run


def test_metric_and_loss_with_final_figures_and_undefined_ones(five: Run) -> None:
    metric, loss = learning_plots(five)
    assert "quito none" in metric.alt
    last = five.journal.validations[-1].sites["kigali"].loss
    assert f"kigali {last:.3f}" in loss.alt


def test_no_validation_no_plot(five: Run) -> None:
    assert learning_plots(dataclasses.replace(five, journal=Journal())) == []


def test_without_baselines_the_picture_is_another(five: Run) -> None:
    bare = dataclasses.replace(five, baselines={})
    assert learning_plots(bare)[1].png != learning_plots(five)[1].png
