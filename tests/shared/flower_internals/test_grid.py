"""What a hostile site can send for an answer, as flwr's own grid reads it."""

import inspect
import json
import tracemalloc
from importlib import import_module

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    validate_object_content,
)

from fedcad.shared.flower_internals import grid as module
from fedcad.shared.flower_internals.grid import UNREADABLE, bound_replies

PIECE = 5 * 2**20


@pytest.fixture(autouse=True)
def flower(monkeypatch):
    """Puts flwr's own functions back afterwards."""
    monkeypatch.setattr(module.grid, "pull_objects", module.grid.pull_objects)
    monkeypatch.setattr(Array, "inflate", Array.__dict__["inflate"])
    name = "inflate_object_from_contents"
    monkeypatch.setattr(module.grid, name, getattr(module.grid, name))


def deflated(name, body, children=()):
    return f"{name} {','.join(children)} {len(body)}".encode() + b"\0" + body


def bomb(times):
    """One piece that an array repeats."""
    piece = deflated("ArrayChunk", bytes(PIECE))
    described = {"dtype": "uint8", "shape": [PIECE * times], "stype": "numpy.ndarray"}
    body = json.dumps({**described, "arraychunk_ids": [0] * times}).encode()
    array = deflated("Array", body, [get_object_id(piece)])
    for content in (piece, array):
        validate_object_content(content)
    return get_object_id(array), {get_object_id(each): each for each in (piece, array)}


def test_flower_itself_would_build_whatever_a_site_says():
    """The reason for the bound, and the names that it needs; at a size that does no harm."""
    identity, contents = bomb(8)
    built = inflate_object_from_contents(identity, contents)
    assert len(built.data) == 8 * PIECE
    assert list(inspect.signature(Array.inflate).parameters) == ["object_content", "children"]
    source = inspect.getsource(import_module("flwr.superlink.grid.http_grid").HttpGrid.pull_messages)
    assert "all_object_contents = pull_objects(" in source
    assert "except ObjectPullError" in source


def test_an_array_cannot_say_that_it_is_larger_than_what_is_expected():
    bound_replies(8 * PIECE)
    module.grid.pull_objects([], lambda _: b"")
    identity, contents = bomb(1_000_000)
    with pytest.raises(UNREADABLE, match="more than"):
        inflate_object_from_contents(identity, contents)


def test_the_bound_is_that_of_all_arrays_together_and_anew_for_each_reply():
    bound_replies(8 * PIECE)
    for _ in range(3):
        module.grid.pull_objects([], lambda _: b"")
        identity, contents = bomb(6)
        inflate_object_from_contents(identity, contents)
    with pytest.raises(UNREADABLE, match="more than"):
        inflate_object_from_contents(*bomb(6))


def test_what_came_is_bounded_while_it_comes():
    bound_replies(1000)
    pulled = []

    def pull(identity):
        pulled.append(identity)
        return bytes(400)

    with pytest.raises(UNREADABLE, match="more than 1000"):
        module.grid.pull_objects([str(number) for number in range(50)], pull)
    assert len(pulled) < 10
    assert set(module.grid.pull_objects(["a", "b"], pull)) == {"a", "b"}


def test_an_honest_answer_of_the_expected_size_arrives():
    values = np.arange(4 * 2**20, dtype=np.float32)
    content = RecordDict({"vectors": ArrayRecord({"model": Array(values)})})
    contents = {name: each.deflate() for name, each in get_all_nested_objects(content).items()}
    bound_replies(values.nbytes + 100_000)
    found = module.grid.pull_objects(list(contents), contents.__getitem__)
    arrived = inflate_object_from_contents(content.object_id, found)
    assert np.array_equal(arrived["vectors"]["model"].numpy(), values)


def test_bounding_again_takes_the_place_of_the_first_bound():
    bound_replies(1)
    bound_replies(8 * PIECE)
    module.grid.pull_objects([], lambda _: b"")
    inflate_object_from_contents(*bomb(2))


def deflated_all(content):
    return {name: each.deflate() for name, each in get_all_nested_objects(content).items()}


def test_arrays_that_share_pieces_arrive_whole_and_their_pieces_are_let_go():
    zeros = np.zeros(5 * 2**20, dtype=np.float32)
    arrays = {"model": zeros, "control": zeros + 0.0, "again": zeros.reshape(5, -1), "empty": zeros[:0]}
    arrays["mixed"] = np.concatenate([zeros, np.ones(3, np.float32)])
    content = RecordDict({"vectors": ArrayRecord({name: Array(each) for name, each in arrays.items()})})
    contents = deflated_all(content)
    bound_replies(200 * 2**20)
    module.grid.pull_objects([], lambda _: b"")
    arrived = module.grid.inflate_object_from_contents(content.object_id, contents)
    assert arrived == content
    for name, each in arrays.items():
        assert np.array_equal(arrived["vectors"][name].numpy(), each)
    assert contents == {}


def test_one_array_takes_its_own_size_and_little_more():
    values = np.random.default_rng(1).standard_normal(16 * 2**20, dtype=np.float32)
    content = RecordDict({"vectors": ArrayRecord({"model": Array(values)})})
    identity, contents = content.object_id, deflated_all(content)
    bound_replies(values.nbytes + 100_000)
    module.grid.pull_objects([], lambda _: b"")
    del content
    tracemalloc.start()
    try:
        arrived = module.grid.inflate_object_from_contents(identity, contents)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The pieces were there before tracing began; the buffer grows by an eighth at most.
    assert peak < 1.2 * values.nbytes
    assert np.array_equal(arrived["vectors"]["model"].numpy(), values)


def test_a_repeated_piece_is_bounded_in_place_too():
    bound_replies(8 * PIECE)
    module.grid.pull_objects([], lambda _: b"")
    identity, contents = bomb(1_000_000)
    with pytest.raises(UNREADABLE, match="more than"):
        module.grid.inflate_object_from_contents(identity, contents)


@pytest.mark.parametrize("numbers", [[1], ["0"], [None], {}, None, 7, [0.0]])
def test_an_array_of_pieces_that_there_are_not_is_unreadable(numbers):
    piece = deflated("ArrayChunk", b"abc")
    described = {"dtype": "uint8", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": numbers}
    array = deflated("Array", json.dumps(described).encode(), [get_object_id(piece)])
    record = deflated("ArrayRecord", json.dumps({"x": get_object_id(array)}).encode(), [get_object_id(array)])
    contents = {get_object_id(each): each for each in (piece, array, record)}
    bound_replies(1000)
    module.grid.pull_objects([], lambda _: b"")
    if numbers == {}:
        arrived = module.grid.inflate_object_from_contents(get_object_id(record), contents)
        assert arrived["x"].data == b""
        return
    with pytest.raises(UNREADABLE):
        module.grid.inflate_object_from_contents(get_object_id(record), contents)


def test_an_array_made_of_another_record_is_unreadable():
    piece = deflated("ConfigRecord", b"{}")
    described = {"dtype": "uint8", "shape": [2], "stype": "numpy.ndarray", "arraychunk_ids": [0]}
    array = deflated("Array", json.dumps(described).encode(), [get_object_id(piece)])
    contents = {get_object_id(each): each for each in (piece, array)}
    bound_replies(1000)
    with pytest.raises(UNREADABLE, match="something else"):
        module.grid.inflate_object_from_contents(get_object_id(array), contents)


def test_errors_of_the_network_are_not_a_sites_fault():
    for error in (httpx.ConnectError("x"), httpx.ReadTimeout("x"), ObjectPullError("x", "y"), OSError()):
        assert not isinstance(error, UNREADABLE)
