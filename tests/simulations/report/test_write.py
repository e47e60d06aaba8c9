"""One call writes page and plots, and nothing else."""

from pathlib import Path

import pytest
from PIL import Image
from run_folder_factory import FIVE_SITES, write_run

from fedcad.shared.errors import DataError
from fedcad.simulations.report.write import write_report


def test_page_and_nine_plots(report: Path) -> None:
    assert report.name == "report.html"
    plots = sorted(path.name for path in (report.parent / "plots").iterdir())
    assert plots == [
        "calibration.png", "confusion.png", "headline.png", "learning-loss.png", "learning-metric.png",
        "participation.png", "roc.png", "time-and-bytes.png", "who-holds-what.png",
    ]  # fmt: skip
    for path in (report.parent / "plots").iterdir():
        Image.open(path).verify()


def test_inputs_are_untouched_and_the_page_is_reproducible(tmp_path: Path) -> None:
    write_run(tmp_path, sites=FIVE_SITES[:1], rounds=1, baselines=())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first
    assert {path: path.read_bytes() for path in before} == before
    made = {path.name for path in tmp_path.iterdir()} - {path.name for path in before}
    assert made == {"report.html", "plots"}


def test_a_folder_that_is_no_run_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
