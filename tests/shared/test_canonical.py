"""Canonical JSON and hashes: one byte sequence for one value, another for any other."""

import enum
import hashlib
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcad.shared.canonical import (
    canonical_json,
    hash_of,
    hash_of_array,
    hash_of_hashes,
    hash_of_vectors,
)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with its keys in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(each, order)) for key, each in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(each, order) for each in value] if isinstance(value, list) else value


@given(plain, st.integers())
@settings(max_examples=80, deadline=None)
def test_the_order_of_keys_does_not_show(value: Any, seed: int) -> None:
    other = shuffled(value, random.Random(seed))
    assert canonical_json(other) == canonical_json(value)
    assert hash_of(other) == hash_of(value)


@given(plain)
@settings(max_examples=80, deadline=None)
def test_reading_it_back_gives_the_same_bytes(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


def test_bytes_worked_by_hand() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,2.5,null]}'.encode()
    assert hash_of({}) == hashlib.sha256(b"{}").hexdigest()
    assert canonical_json((1, "x")) == b'[1,"x"]'


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0, None), ("1", 1), ([], {}), (0.0, -0.0)])
def test_values_that_python_calls_equal_are_told_apart(one: Any, other: Any) -> None:
    assert hash_of(one) != hash_of(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800"])
def test_values_that_json_cannot_hold_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("value", [b"x", {1, 2}, object(), np.float32(1), np.int64(1), Colour.RED, 1j])
def test_values_that_are_not_plain_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("key", [1, 1.5, None, True, (1,)])
def test_keys_that_json_would_turn_into_text_are_refused_at_any_depth(key: Any) -> None:
    for value in ({key: 0}, [{"a": {key: 0}}], ({"x": [{key: 0}]},)):
        with pytest.raises(TypeError, match="text keys"):
            canonical_json(value)


# Arrays.

some_arrays = arrays(
    st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)


@given(some_arrays)
@settings(max_examples=60, deadline=None)
def test_an_arrays_hash_is_of_its_little_endian_bytes_whatever_its_layout_in_memory(array: Any) -> None:
    expected = hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert hash_of_array(array) == expected
    assert hash_of_array(np.asfortranarray(array)) == expected
    assert hash_of_array(array.astype(array.dtype.newbyteorder(">"))) == expected
    assert hash_of_array(np.repeat(array, 2, axis=0)[::2]) == expected


@pytest.mark.parametrize("change", [(0, 1.0), (5, -0.0), (2, np.nan)])
def test_any_changed_bit_shows(change: tuple[int, float]) -> None:
    array = np.zeros(6, dtype=np.float32)
    other = array.copy()
    other[change[0]] = change[1]
    assert hash_of_array(other) != hash_of_array(array)


def test_names_shapes_and_types_are_part_of_a_hash_of_vectors_and_order_is_not() -> None:
    one, two = np.zeros(4, dtype=np.float32), np.ones(2, dtype=np.float32)
    base = hash_of_vectors({"a": one, "b": two})
    assert hash_of_vectors({"b": two, "a": one}) == base
    different = [
        {"a": two, "b": one},
        {"a": one},
        {"a": one, "c": two},
        {"a": one.reshape(2, 2), "b": two},
        {"a": one.view(np.int32), "b": two},
        {"a": one, "b": two, "c": two[:0]},
    ]
    hashes = {base, *(hash_of_vectors(each) for each in different)}
    assert len(hashes) == len(different) + 1


def test_known_hashes_give_the_same_hash() -> None:
    array = np.arange(3, dtype=np.float32)
    assert hash_of_hashes({"a": (array, hash_of_array(array))}) == hash_of_vectors({"a": array})


def test_a_scalar_and_an_empty_array_have_hashes() -> None:
    assert hash_of_array(np.array(1.0)) == hashlib.sha256(np.array(1.0).tobytes()).hexdigest()
    assert hash_of_array(np.zeros(0)) == hashlib.sha256(b"").hexdigest()


def test_objects_have_no_bytes() -> None:
    with pytest.raises(TypeError):
        hash_of_array(np.array([object()]))
