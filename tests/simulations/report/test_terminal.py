"""The console table fits 80 columns, on a terminal and off it."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.terminal import plain_summary, print_summary


def printed(run: Run, *, terminal: bool) -> str:
    stream = io.StringIO()
    print_summary(run, Console(file=stream, width=80, force_terminal=terminal, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_fits_eighty_columns_without_cutting_a_figure(five: Run, terminal: bool) -> None:
    text = printed(five, terminal=terminal)
    table = text[text.index("Macro AUROC") : text.index("quito is undefined")]
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert "…" not in table
    assert "mean of sites" in table
    for model in ("federated", "alone", "ensemble", "pooled"):
        assert model in table


def test_intervals_on_the_terminal(five: Run) -> None:
    interval = five.results.evaluation("federated", "lyon").interval  # type: ignore[union-attr]
    assert interval is not None
    assert f"{interval[0]:.2f}–{interval[1]:.2f}" in printed(five, terminal=True)


def test_undefined_and_external_are_explained(five: Run) -> None:
    text = plain_summary(five)
    assert "quito is undefined: all 16 test cases are normal: nothing to tell apart." in text
    assert "* external: never trained." in text
    assert text.startswith("Completed 12 of 12 rounds; 3 of 4 training sites missed rounds")


def test_plain_text_is_ascii_and_marks_verdicts(five: Run) -> None:
    text = plain_summary(five)
    assert text.isascii()
    assert "(+)" in text
    assert "(0)" in text


def test_stopped_run(stopped: Run) -> None:
    assert "No model was tested." in printed(stopped, terminal=True)


def test_hostile_names_do_not_reach_the_terminal(five: Run) -> None:
    hostile = five.results.sites[0].model_copy(update={"name": "a\x1b[2J[bold]b"})
    results = five.results.model_copy(update={"sites": (hostile, *five.results.sites[1:])})
    run = Run(five.folder, results, five.journal, {}, {}, {})
    for terminal in (True, False):
        text = printed(run, terminal=terminal)
        assert "\x1b[2J" not in text
        assert "[bold]" in text.replace("\n", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_sites_never_trained_on_are_a_table_of_their_own(five: Run, unseen: Run, terminal: bool) -> None:
    text = printed(unseen, terminal=terminal)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    part = text[text.index("A site never trained on") :]
    cell = unseen.results.evaluation("without-lyon", "lyon")
    assert cell is not None
    assert f"{cell.metrics['macro_auroc'].value:.3f}" in part
    assert "external sites" in text
    assert "never trained on" not in printed(five, terminal=terminal)
