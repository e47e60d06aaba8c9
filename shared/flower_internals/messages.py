"""Flower messages made and named outside Flower, which the engine in this process needs.

Flower makes messages only inside its own processes and hides the metadata of replies; an engine outside
them must say who it is and set the metadata itself.
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.supercore.task_identity import TaskIdentity

_FIELDS = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
)


def enter_task() -> None:
    """Allow this process to make messages."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def name_message(message: Message, identity: str) -> None:
    """Give a message its id."""
    message.metadata.__dict__["_message_id"] = identity


def metadata_of(message: Message) -> dict[str, Any]:
    """Return a message's metadata as plain data."""
    return {name: getattr(message.metadata, name) for name in _FIELDS}


def reply_metadata(metadata: Mapping[str, Any], created_at: float) -> dict[str, Any]:
    """Return the metadata of a reply to a message with this metadata."""
    return {
        **metadata,
        "message_id": f"r-{metadata['message_id']}",
        "src_node_id": metadata["dst_node_id"],
        "dst_node_id": metadata["src_node_id"],
        "reply_to_message_id": metadata["message_id"],
        "created_at": created_at,
    }


def make_message(metadata: Mapping[str, Any], body: RecordDict | Error) -> Message:
    """Make a message from metadata and a content or an error."""
    named = {"error": body} if isinstance(body, Error) else {"content": body}
    message: Message = Message(metadata=Metadata(**metadata), **named)  # type: ignore[call-overload]
    return message
