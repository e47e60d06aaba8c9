from fedcad.simulations.report.headline import Cell
from fedcad.simulations.report.plot_compare import compare_plot


def test_alt_text_says_figures_and_undefined_places() -> None:
    values = {"one": {"a": Cell(0.5, (0.4, 0.6)), "b": Cell(None)}, "two": {"a": Cell(0.75)}}
    plot = compare_plot("macro_auroc", ["a", "b"], values)
    assert "a: one 0.500, two 0.750; b: undefined." in plot.alt
    assert plot.png.startswith(b"\x89PNG")


def test_no_runs_with_figures_is_drawn_empty() -> None:
    assert compare_plot("macro_auroc", ["a"], {}).png.startswith(b"\x89PNG")
