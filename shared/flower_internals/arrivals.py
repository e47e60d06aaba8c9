"""How much memory a message may take at a site, looked at while it comes, before anything is built of it.

A compromised coordinator, or a proxy that breaks TLS open, chooses the objects of a message: without a bound
it fills the hospital's memory, and five megabytes that an array repeats fill it as well as a terabyte.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

from flwr.app import Array
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)

Pull = Callable[[str], bytes]
PATIENCE = {"initial_backoff": 0.2, "backoff_cap": 1.0, "max_tries_per_object": None}
"""How a receiver asks for pieces that their sender has not uploaded yet: every second. flwr's waits double up
to 10 s, in which all pieces are long there; its limit of two hours stays."""


def bounded_pull(pull: Callable[..., dict[str, bytes]], largest_bytes: int) -> Any:
    """Return flwr's ``pull_objects`` with a bound.

    Args:
        pull: flwr's own.
        largest_bytes: Most bytes of all objects of a message, and most bytes of its arrays once built.

    Returns:
        The same function; it raises ValueError for a message that is larger, at which flwr drops the message.
    """

    def pull_objects(object_ids: list[str], pull_object_fn: Pull, **named: Any) -> dict[str, bytes]:
        arrived, lock = [0], threading.Lock()

        def pull_object(object_id: str) -> bytes:
            content = pull_object_fn(object_id)
            with lock:
                arrived[0] += len(content)
            _check(arrived[0], largest_bytes)
            return content

        contents = pull(object_ids, pull_object, **PATIENCE, **named)
        _check(built_bytes(contents), largest_bytes)
        return contents

    return pull_objects


def built_bytes(contents: dict[str, bytes]) -> int:
    """Return how many bytes the arrays among some objects have once they are built.

    Raises:
        ValueError: An object is none of flwr's.
    """
    return sum(_array_bytes(content, contents) for content in contents.values())


def _array_bytes(content: bytes, contents: dict[str, bytes]) -> int:
    try:
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind != Array.__qualname__:
            return 0
        sizes = [len(contents.get(child, b"")) for child in children]
        return sum(sizes[piece] for piece in json.loads(get_object_body(content, Array))["arraychunk_ids"])
    except (TypeError, LookupError, RecursionError) as error:
        raise ValueError("an object of the message is not one of Flower's") from error


def _check(size: int, largest_bytes: int) -> None:
    if size > largest_bytes:
        raise ValueError(
            f"the message has more than {largest_bytes} bytes; the site file's largest_payload_mb bounds it"
        )
