"""Damage of a small JSON file is one sentence; no file is no damage."""

from pathlib import Path

import pytest

from fedcad.server.plain_files import plain_errors, read_object
from fedcad.shared.errors import CheckpointError


def test_an_object_is_read_and_no_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_object(tmp_path / "x.json") == {"a": 1}
    assert read_object(tmp_path / "y.json") is None


def test_an_empty_file_is_damage_unless_expected(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"")
    assert read_object(tmp_path / "x.json", empty_is_none=True) is None
    with pytest.raises(ValueError, match="Expecting value"):
        read_object(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b"{", b"\xff", b"[" * 5000])
def test_anything_else_is_one_sentence_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with (
        pytest.raises(CheckpointError, match=r"x.json: cannot be read \(.+\); call me") as found,
        plain_errors(path, "call me"),
    ):
        read_object(path)
    assert "\n" not in str(found.value)


def test_a_missing_key_and_a_folder_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"'rounds' is missing"), plain_errors(tmp_path, "x"):
        raise KeyError("rounds")
    with pytest.raises(CheckpointError, match=r"Is a directory"), plain_errors(folder, "x"):
        read_object(folder)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), plain_errors(tmp_path, "x"):
        raise ZeroDivisionError
