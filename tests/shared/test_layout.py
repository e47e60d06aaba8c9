"""The layout: what travels, in which order, and what is not a layout."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.errors import ProtocolError
from fedcad.shared.layout import LARGEST_VECTOR, Entry, Layout, Norm, Role

entries = st.lists(
    st.builds(
        Entry,
        st.text(min_size=1, max_size=6),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
        st.sampled_from(["float32", "float64", "float16", "bfloat16", "int64", "bool"]),
        st.sampled_from(Role),
        st.sampled_from(Norm),
    ),
    max_size=8,
    unique_by=lambda entry: entry.name,
)


def test_worked_by_hand() -> None:
    layout = Layout(
        (
            Entry("n/mean", (3,), "float32", Role.BUFFER),
            Entry("n/weight", (2, 3), "float32", Role.TRAINED),
            Entry("n/count", (), "int64", Role.BUFFER),
            Entry("n/frozen", (5,), "float32", Role.FROZEN),
            Entry("n/own", (5,), "float32", Role.LOCAL),
            Entry("n/bias", (), "float32", Role.TRAINED),
        )
    )
    assert [(entry.name, place.start, place.stop) for entry, place in layout.slices()] == [
        ("n/weight", 0, 6),
        ("n/bias", 6, 7),
        ("n/mean", 7, 10),
    ]
    assert (layout.size, layout.trained_size) == (10, 7)


@given(entries)
@settings(max_examples=80, deadline=None)
def test_places_tile_the_vector_trained_first_in_order(found: list[Entry]) -> None:
    layout = Layout(tuple(found))
    places = list(layout.slices())
    assert [place.start for _, place in places] == [0, *(place.stop for _, place in places)][: len(places)]
    assert all(place.stop - place.start == entry.size for entry, place in places)
    assert (places[-1][1].stop if places else 0) == layout.size
    kinds = [entry.role for entry, _ in places]
    assert kinds == sorted(kinds, key=lambda role: role is not Role.TRAINED)
    assert sum(entry.size for entry, _ in places if entry.role is Role.TRAINED) == layout.trained_size
    for role in (Role.TRAINED, Role.BUFFER):
        order = [entry for entry in found if entry.role is role and entry.is_exchanged]
        assert [entry for entry, _ in places if entry.role is role] == order


@given(entries)
@settings(max_examples=80, deadline=None)
def test_frozen_local_and_integer_buffers_never_travel(found: list[Entry]) -> None:
    for entry, _ in Layout(tuple(found)).slices():
        assert entry.role in (Role.TRAINED, Role.BUFFER)
        assert entry.role is Role.TRAINED or "float" in entry.dtype


@given(entries)
@settings(max_examples=60, deadline=None)
def test_plain_data_comes_back(found: list[Entry]) -> None:
    layout = Layout(tuple(found))
    assert Layout.from_plain(layout.to_plain()) == layout


WRONG: dict[str, Any] = {
    "number": 3,
    "none": None,
    "numbers": [3],
    "short entry": [["a", [1], "float32"]],
    "long entry": [["a", [1], "float32", "trained", 0]],
    "text entry": ["abcd"],
    "name is a number": [[1, [1], "float32", "trained", "none"]],
    "shape is text": [["a", "12", "float32", "trained", "none"]],
    "shape is a number": [["a", 1, "float32", "trained", "none"]],
    "length is text": [["a", ["1"], "float32", "trained", "none"]],
    "length is a fraction": [["a", [1.5], "float32", "trained", "none"]],
    "length is a whole float": [["a", [1.0], "float32", "trained", "none"]],
    "length is infinite": [["a", [float("inf")], "float32", "trained", "none"]],
    "length is true": [["a", [True], "float32", "trained", "none"]],
    "negative": [["a", [-1], "float32", "trained", "none"]],
    "two negatives": [["a", [-1, -1], "float32", "frozen"]],
    "dtype is none": [["a", [1], None, "trained", "none"]],
    "unknown role": [["a", [1], "float32", "secret"]],
    "role is a list": [["a", [1], "float32", ["trained", "none"]]],
    "twice": [["a", [1], "float32", "trained", "none"], ["a", [2], "float32", "buffer", "none"]],
    "too large": [["a", [LARGEST_VECTOR + 1], "float32", "trained", "none"]],
    "no norm": [["a", [1], "float32", "trained"]],
    "another norm": [["a", [1], "float32", "trained", "spectral"]],
    "too large together": [[name, [2**30 + 1], "float32", "trained", "none"] for name in "ab"],
    "absurd": [["a", [2**62, 2**62, 2**62], "float32", "trained", "none"]],
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_not_a_layout_is_refused(kind: str) -> None:
    with pytest.raises(ProtocolError, match="layout"):
        Layout.from_plain(WRONG[kind])


def test_the_largest_vector_is_allowed() -> None:
    assert Layout.from_plain([["a", [LARGEST_VECTOR], "float32", "trained", "none"]]).size == LARGEST_VECTOR
