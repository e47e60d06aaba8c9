"""Messages as Flower records and back; the coordinator's tests send hostile bytes through the same door."""

import gc
import weakref
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcad.shared.canonical import hash_of_array, hash_of_vectors
from fedcad.shared.errors import ProtocolError
from fedcad.shared.flower_records import (
    LiveArray,
    answer_content,
    array_record,
    plan_content,
    read_answer,
    read_plan,
    read_site_info,
)
from fedcad.shared.messages import Header, Refusal, RoundPlan, SiteInfo, Update

vectors = st.dictionaries(
    st.sampled_from(["model", "variate", "third"]),
    arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32)),
    min_size=1,
)
HEADER = Header(study_hash="0" * 64, plan="1" * 64, round=1, site="a", weights={"model": 1})


def as_bytes(content: RecordDict) -> RecordDict:
    """The content as it arrives from another process: arrays are bytes."""
    arrived = RecordDict(dict(content.config_records))
    for name, record in content.array_records.items():
        arrived[name] = ArrayRecord(
            {key: Array(each.dtype, each.shape, each.stype, bytes(each.data)) for key, each in record.items()}
        )
    return arrived


def make_plan(broadcast: Any) -> RoundPlan:
    broadcast_hash = hash_of_vectors(broadcast)
    return RoundPlan(study_hash="0" * 64, site="a", round=1, work=("train",), broadcast_hash=broadcast_hash)


@given(vectors)
@settings(max_examples=40, deadline=None)
def test_a_plan_and_its_broadcast_arrive_bit_by_bit_with_the_hash_of_what_arrived(broadcast: Any) -> None:
    plan, found, digest = read_plan(as_bytes(plan_content(make_plan(broadcast), array_record(broadcast))))
    assert plan == make_plan(broadcast)
    assert digest == plan.broadcast_hash
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in broadcast.items()
    }
    assert all(values.dtype == np.float32 and not values.flags.writeable for values in found.values())


@given(vectors, arrays(np.int64, st.tuples(st.integers(0, 3), st.integers(0, 3))))
@settings(max_examples=40, deadline=None)
def test_an_update_arrives_bit_by_bit(model: Any, statistics: Any) -> None:
    sent = Update(HEADER, model, {"validation": statistics})
    found = read_answer(as_bytes(answer_content(sent)))
    assert isinstance(found, Update)
    assert found.header == HEADER
    assert {k: v.tobytes() for k, v in found.vectors.items()} == {k: v.tobytes() for k, v in model.items()}
    assert found.statistics["validation"].shape == statistics.shape
    assert (found.statistics["validation"] == statistics).all()


def test_other_answers_arrive() -> None:
    refusal = Refusal(plan="1" * 64, site="a", code="no-data")
    info = SiteInfo(
        site="a", study_hash="0" * 64, cases={"train": 1, "validation": 2, "test": 3}, summary="{}"
    )
    assert read_answer(answer_content(refusal)) == refusal
    assert read_site_info(answer_content(info)) == info


def test_a_changed_broadcast_has_another_hash() -> None:
    broadcast = {"model": np.zeros(3, dtype=np.float32)}
    changed = {"model": np.array([0, 0, 1e-30], dtype=np.float32)}
    plan, _, digest = read_plan(as_bytes(plan_content(make_plan(broadcast), array_record(changed))))
    assert digest != plan.broadcast_hash


def test_values_are_views_of_the_bytes_that_came() -> None:
    """Nothing is copied, so that a message does not need its size twice."""
    content = as_bytes(answer_content(Update(HEADER, {"model": np.ones(1000, dtype=np.float32)})))
    found = read_answer(content)
    assert isinstance(found, Update)
    assert not found.vectors["model"].flags.owndata


# Live arrays.


def test_a_live_array_is_the_array_and_serialises_like_flowers_own() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    live = LiveArray(values)
    assert live.numpy() is values
    assert (live.dtype, live.shape, live.stype) == ("float32", (2, 3), "numpy.ndarray")
    assert live.data == Array(values).data
    assert np.array_equal(np.load(BytesIO(live.data), allow_pickle=False), values)
    assert Array(live.dtype, live.shape, live.stype, live.data).numpy().tolist() == values.tolist()


def test_only_a_read_only_live_array_remembers_its_hash() -> None:
    values = np.arange(3, dtype=np.float32)
    with pytest.raises(ValueError, match="read-only"):
        _ = LiveArray(values).sha256
    values.flags.writeable = False
    assert LiveArray(values).sha256 == hash_of_array(values)


def test_a_plan_of_live_arrays_is_read_without_copying() -> None:
    values = np.arange(3, dtype=np.float32)
    values.flags.writeable = False
    plan, found, digest = read_plan(
        plan_content(make_plan({"model": values}), array_record({"model": values}))
    )
    assert found["model"] is values
    assert digest == plan.broadcast_hash


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(3, dtype=np.int64), np.zeros(3, dtype=">f4")])
def test_a_live_array_of_another_type_is_refused(values: Any) -> None:
    with pytest.raises(ProtocolError, match="expected float32"):
        read_answer(answer_content(Update(HEADER, {"model": values})))


# Wrong contents.


def test_a_broadcast_must_be_there_and_be_arrays() -> None:
    plan = ConfigRecord({"json": "{}"})
    for content in (
        RecordDict(),
        RecordDict({"plan": plan}),
        RecordDict({"plan": ArrayRecord()}),
        plan_content(make_plan({}), ConfigRecord()),  # type: ignore[arg-type]
    ):
        with pytest.raises(ProtocolError):
            read_plan(content)


def test_names_of_strange_records_are_cut() -> None:
    content = RecordDict({"s" * 10_000 + str(number): ConfigRecord() for number in range(20)})
    with pytest.raises(ProtocolError) as caught:
        read_site_info(content)
    assert len(str(caught.value)) < 2000


@given(st.binary(max_size=300), st.lists(st.integers(-3, 9), max_size=3))
@settings(max_examples=80, deadline=None)
def test_noise_is_only_ever_a_protocol_error(noise: bytes, shape: list[int]) -> None:
    header = np.lib.format.magic(1, 0)
    for data in (noise, header + noise, Array(np.zeros(3, dtype=np.float32)).data + noise):
        record = ArrayRecord({"model": Array("float32", tuple(shape), "numpy.ndarray", data)})
        content = answer_content(Update(HEADER))
        content["vectors"] = record
        try:
            read_answer(content)
        except ProtocolError:
            continue
        assert shape == [3]
        assert data == Array(np.zeros(3, dtype=np.float32)).data


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_of_an_array_is_refused_or_is_another_value(data: Any) -> None:
    good = bytearray(Array(np.ones(4, dtype=np.float32)).data)
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    content = answer_content(Update(HEADER))
    content["vectors"] = ArrayRecord({"model": Array("float32", (4,), "numpy.ndarray", bytes(good))})
    if place < len(good) - 16:
        with pytest.raises(ProtocolError):
            read_answer(content)
    else:
        found = read_answer(content)
        assert isinstance(found, Update)
        assert found.vectors["model"].tobytes() == bytes(good[-16:])


def test_reading_a_content_leaves_no_cycle_that_keeps_its_arrays() -> None:
    """An update of many megabytes must go when it has been used, not when the collector looks."""
    values = np.ones(4, dtype=np.float32)
    content = answer_content(Update(HEADER, {"model": values}, {}))
    gone = weakref.ref(content)
    gc.disable()
    try:
        read_answer(content)
        del content
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("shape", [(True, 2), (2,) + (1,) * 40, (-1, -2), (2**62,) * 20_000])
def test_a_shape_is_a_few_whole_numbers(shape: tuple[int, ...]) -> None:
    """True counts as 1 until NumPy refuses it; the product of many large numbers takes seconds."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape[:50]}
    )
    array = Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=header.getvalue() + bytes(8))
    content = answer_content(Update(HEADER, {}, {}))
    content["vectors"] = ArrayRecord({"model": array})
    with pytest.raises(ProtocolError, match="expected float32 of at most"):
        read_answer(content)
