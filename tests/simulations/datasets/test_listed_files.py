from pathlib import Path

import pytest

from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.label_table import Row
from fedcad.simulations.datasets.listed_files import find_listed_files, find_unlisted_files, resolve_inside


def _row(line: int, file: str, patient: str = "p", label: str = "l", surplus: bool = False) -> Row:
    return Row(line, {"file": file, "patient_id": patient, "label": label}, surplus)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "data"
    (inside / "images").mkdir(parents=True)
    for name in ("a.png", "b.png", "images/c.png"):
        (inside / name).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (inside / "way_out.png").symlink_to(tmp_path / "secret.png")
    (inside / "loop.png").symlink_to(inside / "loop.png")
    return inside


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no file is named"),
        ("a\0.png", "no file is named"),
        ("/etc/passwd", "absolute"),
        ("C:\\images\\a.png", "absolute"),
        ("../secret.png", "leads out"),
        ("images/../../secret.png", "leads out"),
        ("way_out.png", "leads out"),
        ("absent.png", "no such file"),
        ("images", "no such file"),
        ("loop.png", "cannot be followed|no such file"),
        ("x" * 5000, "cannot be followed"),
    ],
)
def test_paths_that_are_no_file_inside_are_refused(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        resolve_inside(folder, name)


def test_bad_rows_are_listed_and_good_ones_kept(folder: Path) -> None:
    rows = [
        _row(2, "a.png"),
        _row(3, "absent.png"),
        _row(4, "b.png", patient=""),
        _row(5, "b.png", label=""),
        _row(6, "images/c.png", surplus=True),
        _row(7, ""),
        _row(8, "images/../images/c.png"),
    ]
    kept, rejected = find_listed_files(folder, rows)
    assert [item.name for item in kept] == ["a.png", "images/c.png"]
    assert [(bad.file, bad.reason.split(":")[0]) for bad in rejected] == [
        ("absent.png", "line 3"),
        ("b.png", "line 4"),
        ("b.png", "line 5"),
        ("images/c.png", "line 6"),
        ("line 7", "line 7"),
    ]
    assert "patient_id is empty" in rejected[1].reason
    assert "label is empty" in rejected[2].reason


def test_a_file_listed_twice_is_kept_once(folder: Path) -> None:
    kept, rejected = find_listed_files(folder, [_row(2, "a.png"), _row(3, "./a.png")])
    assert [item.row.line for item in kept] == [2]
    assert [bad.reason for bad in rejected] == ["line 3: listed already in line 2"]


@pytest.mark.parametrize("other", [{"label": "other"}, {"patient": "q"}])
def test_of_rows_that_disagree_none_is_kept(folder: Path, other: dict[str, str]) -> None:
    kept, rejected = find_listed_files(folder, [_row(2, "a.png"), _row(3, "a.png", **other)])
    assert kept == []
    assert len(rejected) == 2
    assert all("different patients or labels" in bad.reason for bad in rejected)


def test_unlisted_files_are_those_that_no_row_names(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "d.png").write_bytes(b"x")
    rows = [_row(2, "./a.png"), _row(3, "b.png", label="")]
    kept, _ = find_listed_files(folder, rows)
    assert find_unlisted_files(folder, rows, kept, is_data=lambda _: True) == [
        "images/c.png",
        "loop.png",
        "way_out.png",
    ]
    assert find_unlisted_files(folder, rows, kept, is_data=lambda path: path.parent.name == "images") == [
        "images/c.png"
    ]
    assert find_unlisted_files(folder, [], [], is_data=lambda _: False) == []
