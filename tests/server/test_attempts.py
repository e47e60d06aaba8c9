"""Attempts are counted durably, and a damaged count is never taken for a first attempt."""

from pathlib import Path

import pytest

from fedcad.server.attempts import Attempts
from fedcad.shared.errors import CheckpointError


def test_the_first_attempt_needs_no_file(tmp_path: Path) -> None:
    assert Attempts(tmp_path / "attempt.json").number == 1
    assert not list(tmp_path.iterdir())


def test_attempts_are_counted_over_restarts(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempt.json")
    attempts.begin_another()
    assert attempts.number == 2
    again = Attempts(tmp_path / "attempt.json")
    assert again.number == 2
    again.begin_another()
    assert Attempts(tmp_path / "attempt.json").number == 3


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"attempt": "x"}', b"\xff"])
def test_a_damaged_count_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "attempt.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="attempts cannot be read"):
        Attempts(tmp_path / "attempt.json")
