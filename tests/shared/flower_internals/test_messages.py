"""Contract with private names of flwr: a new version must break these tests, not a study."""

import dataclasses
import importlib.metadata

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedcad.shared.flower_internals.messages import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)
from fedcad.shared.flower_records import array_record

VERSION = "1.41.0"


def new_message(**more):
    enter_task()
    return Message(RecordDict({"do": ConfigRecord({"a": 1})}), 5, "train", group_id="3", **more)


def test_installed_version_is_the_one_these_names_were_read_in():
    assert importlib.metadata.version("flwr") == VERSION, (
        f"flwr is not {VERSION}: read client and server messages, metadata and TaskIdentity again, "
        "correct flower_internals/messages.py, then change this number"
    )


def test_messages_cannot_be_made_before_a_task_is_entered():
    """The reason for enter_task; once this fails, enter_task can go."""
    names = ("run_id", "node_id", "task_id")
    before = {name: TaskIdentity.__dict__.get(name) for name in names}
    try:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = None
        with pytest.raises(Exception):  # noqa: B017 - any refusal
            Message(RecordDict(), 5, "train")
    finally:
        for name in names:
            setattr(TaskIdentity, name, before[name])
    assert new_message().metadata.dst_node_id == 5


def test_a_message_gets_the_identity_given():
    message = new_message()
    name_message(message, "m17")
    assert message.metadata.message_id == "m17"


def test_metadata_survives_and_reply_is_addressed_back():
    message = new_message(ttl=60.0)
    name_message(message, "m1")
    plain = metadata_of(message)
    assert plain["message_type"] == "train"
    assert plain["group_id"] == "3"
    copy = make_message(plain, RecordDict())
    assert metadata_of(copy) == plain
    reply = make_message(reply_metadata(plain, plain["created_at"] + 1), RecordDict())
    assert reply.metadata.reply_to_message_id == "m1"
    assert reply.metadata.src_node_id == 5
    assert reply.metadata.dst_node_id == plain["src_node_id"]
    assert reply.metadata.message_id == "r-m1"


def test_flower_itself_replies_in_the_same_way():
    message = new_message()
    name_message(message, "m1")
    theirs = metadata_of(Message(RecordDict(), reply_to=message))
    ours = reply_metadata(metadata_of(message), theirs["created_at"])
    kept = {"message_id", "ttl", "created_at", "src_node_id"}
    assert {k: v for k, v in ours.items() if k not in kept} == {
        k: v for k, v in theirs.items() if k not in kept
    }


def test_errors_and_contents():
    plain = metadata_of(new_message())
    failed = make_message(plain, Error(2, "the site's process died"))
    assert failed.has_error()
    assert failed.error.reason == "the site's process died"
    content = RecordDict({"vectors": array_record({"model": np.zeros(2, np.float32)})})
    assert make_message(plain, content).content is content


def test_metadata_has_no_field_that_we_lose():
    message = new_message()
    known = set(metadata_of(message))
    public = {
        name
        for name in vars(type(message.metadata))
        if isinstance(vars(type(message.metadata))[name], property)
    }
    if dataclasses.is_dataclass(message.metadata):
        public |= {field.name.lstrip("_") for field in dataclasses.fields(message.metadata)}
    assert public - known <= {"delivered_at", "src_task_id", "dst_task_id"}
