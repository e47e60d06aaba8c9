from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.label_table import read_label_table


def _table(folder: Path, content: bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content)
    return path


def test_rows_have_lines_and_stripped_cells(tmp_path: Path) -> None:
    path = _table(
        tmp_path, b'\xef\xbb\xbffile, label ,note\r\na.png, x ,"two\nlines"\r\n\r\nb.png\r\nc,d,e,f\r\n'
    )
    rows = read_label_table(path, required=("file", "label"))
    assert [row.line for row in rows] == [3, 5, 6]
    assert dict(rows[0].cells) == {"file": "a.png", "label": "x", "note": "two\nlines"}
    assert rows[1].cells["label"] == ""
    assert [row.surplus for row in rows] == [False, False, True]


def test_a_missing_column_is_named_with_the_file_and_what_is_there(tmp_path: Path) -> None:
    path = _table(tmp_path, b"file,Label\n")
    with pytest.raises(
        DataError, match=r"labels\.csv: lacks the columns patient_id, label; there is: file, Label"
    ):
        read_label_table(path, required=("file", "patient_id", "label"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"file;label\na;b\n", "separated by ';'"),
        (b"file,label,label\n", "names label more than once"),
        (b"file,label\n\xff,a\n", "is not UTF-8"),
        (b'file,label\n"never closed,a\n', "not a well-formed CSV"),
        (b"file,label\n" + b"x" * 200_000 + b",a\n", "not a well-formed CSV"),
    ],
)
def test_tables_that_cannot_be_used_say_why(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_label_table(_table(tmp_path, content), required=("file", "label"))


def test_an_absent_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_label_table(tmp_path / "labels.csv", required=())


@given(content=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = _table(tmp_path_factory.getbasetemp(), b"file,label\n" + content)
    try:
        rows = read_label_table(path, required=("file", "label"))
    except DataError:
        return
    assert all(set(row.cells) == {"file", "label"} for row in rows)
