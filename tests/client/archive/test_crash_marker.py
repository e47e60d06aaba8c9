"""Three deaths over one case are noticed; stops by a person and exceptions are no deaths."""

import pytest

from fedcad.client.archive.crash_marker import PATIENCE, CrashMarker


def die(path, *case_ids: str) -> None:
    """Leave the marker as a killed process leaves it."""
    marker = CrashMarker(path).__enter__()
    for case_id in case_ids:
        marker.enter(case_id)


def test_a_case_is_deadly_after_patience_runs_out(tmp_path):
    path = tmp_path / "decoding"
    path.touch()
    for _ in range(PATIENCE):
        assert not CrashMarker(path).is_deadly("c")
        die(path, "a", "b", "c")
    assert CrashMarker(path).is_deadly("c")
    assert not CrashMarker(path).is_deadly("b")


def test_leaving_in_order_or_by_an_exception_clears_the_marker(tmp_path):
    path = tmp_path / "decoding"
    path.touch()
    die(path, "c")
    with pytest.raises(KeyError), CrashMarker(path) as marker:
        marker.enter("c")
        raise KeyError
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b'["c", "x"]'])
def test_a_damaged_marker_counts_for_nothing(tmp_path, content):
    path = tmp_path / "decoding"
    path.write_bytes(content)
    assert not CrashMarker(path).is_deadly("c")
