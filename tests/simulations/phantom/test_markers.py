import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.phantom.markers import letter, place_of


def test_letters_at_their_own_size() -> None:
    assert letter("L", 7).astype(int).tolist() == [[1, 0, 0, 0, 0]] * 6 + [[1, 1, 1, 1, 1]]
    assert letter("R", 14).shape == (14, 10)
    assert letter("R", 0).shape == (5, 4)


@given(
    corner=st.sampled_from(["top-left", "top-right", "bottom-left", "bottom-right"]),
    shift=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    size=st.integers(20, 1024),
)
def test_marker_is_always_inside(corner: str, shift: tuple[float, float], size: int) -> None:
    row, column = place_of(corner, shift, (9, 7), size)  # type: ignore[arg-type]
    assert 0 <= row <= size - 9
    assert 0 <= column <= size - 7


@pytest.mark.parametrize(("corner", "place"), [("top-left", (6, 6)), ("bottom-right", (85, 87))])
def test_places_hand_worked(corner: str, place: tuple[int, int]) -> None:
    assert place_of(corner, (0.0, 0.0), (9, 7), 100) == place  # type: ignore[arg-type]
