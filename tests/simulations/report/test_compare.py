"""Runs stand side by side, or are refused or doubted in words."""

import dataclasses
import io
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from run_folder_factory import FIVE_SITES, SitePlan, write_run

from fedcad.shared.errors import DataError
from fedcad.simulations.report.compare import compare, compare_runs
from fedcad.simulations.report.run_folder import Run, read_run


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes = {"algorithm": "fedprox", "parameters": 11_000_000}
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "other", seed=5, changes=changes))


def silent() -> Console:
    return Console(file=io.StringIO(), width=80)


def test_same_test_sets_raise_no_doubt(five: Run, other: Run) -> None:
    comparison = compare([five, other])
    assert comparison.doubts == ()
    assert [column.label for column in comparison.runs] == ["five", "other"]
    assert comparison.places == ("kigali", "lyon", "osaka", "quito", "tromso", "mean of sites", "union")
    assert comparison.in_mean == ("kigali", "lyon", "osaka")
    column = comparison.runs[0]
    values = [column.cells[name].value or 0.0 for name in comparison.in_mean]
    assert column.cells["mean of sites"].value == pytest.approx(sum(values) / 3)
    assert column.traffic_bytes == 12 * 2 * 4 * 733_708


def test_other_case_counts_are_doubted_by_name_and_number(five: Run, tmp_path: Path) -> None:
    fewer = (dataclasses.replace(FIVE_SITES[0], patients=120), *FIVE_SITES[1:])
    changed = read_run(write_run(tmp_path / "fewer", sites=fewer, rounds=1))
    (doubt,) = compare([five, changed]).doubts
    assert "different test sets (cases at kigali 44 and 33): do not compare" in doubt


def test_other_sites_are_doubted_and_none_in_common_is_refused(five: Run, tmp_path: Path) -> None:
    some = read_run(write_run(tmp_path / "some", sites=FIVE_SITES[:2], rounds=1))
    assert "different sites (osaka, quito and tromso not in both)" in compare([five, some]).doubts[0]
    strangers = read_run(write_run(tmp_path / "x", sites=(SitePlan("x", 50, (0.5, 0.3, 0.2)),), rounds=1))
    with pytest.raises(DataError, match="no site is in all of them"):
        compare([five, strangers])


def test_other_metric_or_classes_are_refused(five: Run, other: Run) -> None:
    for key, value in (("primary_metric", "dice"), ("classes", ("a", "b"))):
        changed = dataclasses.replace(other, results=other.results.model_copy(update={key: value}))
        with pytest.raises(DataError, match=key.replace("_", " ")):
            compare([five, changed])


def test_one_run_is_refused(five: Run) -> None:
    with pytest.raises(DataError, match="two run folders or more, got 1"):
        compare([five])


def test_other_data_or_seed_is_doubted(five: Run, other: Run) -> None:
    changed = dataclasses.replace(
        other,
        results=other.results.model_copy(update={"seed": 2}),
        configuration={"simulation": {"partition": {"kind": "iid"}}},
    )
    doubts = compare([five, changed]).doubts
    assert any("differ in simulation.partition" in doubt for doubt in doubts)
    assert any("different seeds" in doubt for doubt in doubts)


def test_a_stopped_run_is_doubted_and_does_not_take_the_mean_from_others(five: Run, stopped: Run) -> None:
    comparison = compare([five, stopped])
    assert "stopped stopped early" in comparison.doubts[0]
    assert comparison.in_mean == ("kigali", "lyon", "osaka")
    assert "mean of sites" not in comparison.runs[1].cells


def test_table_page_and_plot(five_folder: Path, other: Run, tmp_path: Path) -> None:
    console = silent()
    compare_runs([five_folder, other.folder], tmp_path / "out", console)
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"algorithm +\| +fedavg \| +fedprox", table)
    assert table.isascii()
    Image.open(tmp_path / "out" / "compare.png").verify()
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert "Same sites and same numbers of test cases in every run." in page
    assert "quito: undefined, all 16 test cases are normal" in page
    assert not re.search(r"https?:|<script", re.sub(r"base64,[^\"]+", "", page))


def test_terminal_table_fits_eighty_columns(five_folder: Path, other: Run) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    compare_runs([five_folder, other.folder], None, console)
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_same_run_twice_has_two_labels(five: Run) -> None:
    labels = [column.label for column in compare([five, five]).runs]
    assert len(set(labels)) == 2
