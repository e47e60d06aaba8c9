"""A message that would fill a hospital's memory is dropped while it comes."""

import inspect
import json

import flwr.supernode.start_client_internal as node_loop
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectUnavailableError,
    pull_objects,
    validate_object_content,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.flower_internals.arrivals import PATIENCE, bounded_pull, built_bytes

PIECE = 5 * 2**20


def pulled(contents, largest):
    return bounded_pull(pull_objects, largest)(list(contents), contents.__getitem__)


def objects_of(content):
    return {name: each.deflate() for name, each in get_all_nested_objects(content).items()}


def raw(kind, body, children=()):
    content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
    return get_object_id(content), content


def test_flower_drops_a_message_at_an_error_of_its_pull():
    """What the bound relies on."""
    source = inspect.getsource(node_loop._pull_and_store_message)
    assert "obj_contents = pull_objects(" in source
    assert "except Exception as err" in source
    assert "object_store.delete(message.metadata.message_id)" in source


def test_honest_messages_up_to_the_bound_arrive_whole():
    values = np.arange(3 * 2**20, dtype=np.float32)
    contents = objects_of(
        RecordDict({"vectors": ArrayRecord({"model": Array(values)}), "plan": ConfigRecord({"json": "{}"})})
    )
    assert pulled(contents, values.nbytes + 10_000) == contents
    assert values.nbytes < built_bytes(contents) < values.nbytes + 1000
    with pytest.raises(ValueError, match="largest_payload_mb"):
        pulled(contents, values.nbytes - 1)


def test_pieces_that_an_array_repeats_count_each_time():
    identity, piece = raw("ArrayChunk", bytes(PIECE))
    described = {"dtype": "float32", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 200_000}
    array, content = raw("Array", json.dumps(described).encode(), [identity])
    for each in (piece, content):
        validate_object_content(each)
    with pytest.raises(ValueError, match="more than"):
        pulled({identity: piece, array: content}, 4096 * 10**6)


def test_zeros_of_the_allowed_size_repeat_their_pieces_and_arrive():
    contents = objects_of(RecordDict({"vectors": ArrayRecord({"m": Array(np.zeros(10 * PIECE // 4, "f4"))})}))
    assert len(contents) < 10
    assert pulled(contents, 11 * PIECE) == contents


def test_pulling_stops_at_the_bound():
    asked = []

    def pull(identity):
        asked.append(identity)
        return bytes(400)

    with pytest.raises(ValueError, match="more than"):
        bounded_pull(pull_objects, 1000)([str(number) for number in range(50)], pull)
    assert len(asked) < 10


@given(st.binary(max_size=60), st.sampled_from(["Array", "ArrayChunk", "Message", ""]))
@settings(deadline=None)
def test_noise_is_only_ever_a_value_error(body, kind):
    for content in (raw(kind, body)[1], body, raw("Array", b'{"arraychunk_ids": [9, -1, "x"]}')[1]):
        try:
            built_bytes({"x": content})
        except ValueError:
            continue


def test_pieces_that_come_later_are_asked_for_every_second_at_most():
    """The names that flwr's function must have, and a piece that is there at the third question."""
    assert set(PATIENCE) < set(inspect.signature(pull_objects).parameters)
    assert PATIENCE["backoff_cap"] <= 1.0
    asked = []

    def pull(identity):
        asked.append(identity)
        if len(asked) < 3:
            raise ObjectUnavailableError(identity)
        return piece

    identity, piece = raw("ConfigRecord", b"{}")
    assert bounded_pull(pull_objects, 1000)([identity], pull) == {identity: piece}
