"""What flwr's grid makes of a site's bytes at the coordinator, bounded, and without needless copies.

A reply is a tree of objects that its site made. flwr takes all of them into memory, however many there are,
and builds an array by repeating its pieces as often as the array says: five megabytes can say that they are
a terabyte. Whatever is no message makes flwr raise after it has told the site that all went well.

flwr joins the pieces of an array, of 5 MB each, in a growing buffer, which it then copies, while it keeps all
pieces: three times the array. Here every piece goes where it belongs and is let go: once the array.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import flwr.superlink.grid.http_grid as grid
from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_type_from_object_content,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedcad.shared.flower_internals.arrivals import PATIENCE
from fedcad.shared.flower_internals.fence import replace, require_flower

UNREADABLE: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    DecodeError,
)
"""What flwr raises over bytes that are no message; errors of the network are none of these."""


class _Budget:
    """How many bytes one reply may still take: those that came, and again those that arrays are made of."""

    def __init__(self, largest_bytes: int) -> None:
        self._largest_bytes = largest_bytes
        self._lock = threading.Lock()
        self._arrived = self._built = 0

    def begin(self) -> None:
        self._arrived = self._built = 0

    def arrived(self, size: int) -> None:
        with self._lock:
            self._arrived += size
            self._check(self._arrived)

    def built(self, size: int) -> None:
        self._built += size
        self._check(self._built)

    def _check(self, size: int) -> None:
        if size > self._largest_bytes:
            raise ValueError(f"a reply has more than {self._largest_bytes} bytes")


def bound_replies(largest_bytes: int) -> None:
    """Refuse, in this process and from now on, replies of more bytes.

    Args:
        largest_bytes: Most bytes of all objects of a reply, and most bytes of all of its arrays.

    Raises:
        UnsupportedError: This is another flwr than the one whose inside is known.
    """
    require_flower()
    budget = _Budget(largest_bytes)
    replace(grid, "pull_objects", _bounded_pull(_original(vars(grid)["pull_objects"]), budget))
    inflate = _original(Array.__dict__["inflate"].__func__)
    replace(Array, "inflate", classmethod(_mark(_bounded_inflate(inflate, budget), inflate)))
    whole = _original(vars(grid)["inflate_object_from_contents"])
    replace(grid, "inflate_object_from_contents", _mark(_inflate_in_place(whole, budget), whole))


def _bounded_pull(pull: Callable[..., dict[str, bytes]], budget: _Budget) -> Any:
    def pull_objects(
        object_ids: list[str], pull_object_fn: Callable[[str], bytes], **named: Any
    ) -> dict[str, bytes]:
        def pull_object(object_id: str) -> bytes:
            content = pull_object_fn(object_id)
            budget.arrived(len(content))
            return content

        budget.begin()
        return pull(object_ids, pull_object, **PATIENCE, **named)

    return _mark(pull_objects, pull)


def _bounded_inflate(inflate: Callable[..., Array], budget: _Budget) -> Callable[..., Array]:
    def bounded(cls: type[Array], object_content: bytes, children: dict[str, Any] | None = None) -> Array:
        pieces = json.loads(get_object_body(object_content, cls))["arraychunk_ids"]
        largest = max((len(child.data) for child in (children or {}).values()), default=0)
        budget.built(max(0, len(pieces) - 1) * largest)
        return inflate(cls, object_content, children)

    return bounded


def _inflate_in_place(inflate: Callable[..., Any], budget: _Budget) -> Any:
    def inflate_object_from_contents(object_id: str, object_contents: dict[str, bytes]) -> Any:
        kinds = {each: get_object_type_from_object_content(it) for each, it in object_contents.items()}
        arrays = [each for each, kind in kinds.items() if kind == Array.__qualname__]
        # Pieces are named by their content: several arrays, or places in one, may share one.
        uses = Counter(piece for each in arrays for piece in _pieces(object_contents[each]))
        if any(kinds.get(piece) != ArrayChunk.__qualname__ for piece in uses):
            raise ValueError("an array is made of something else than pieces of arrays")
        made = {each: _joined(object_contents.pop(each), object_contents, uses, budget) for each in arrays}
        return inflate(object_id, object_contents, objects=made)

    return inflate_object_from_contents


def _pieces(content: bytes) -> Iterator[str]:
    """Yield the ids of an array's pieces, in their order."""
    known = get_object_children_ids_from_object_content(content)
    for number in json.loads(get_object_body(content, Array))["arraychunk_ids"]:
        yield known[number]


def _joined(content: bytes, contents: dict[str, bytes], uses: "Counter[str]", budget: _Budget) -> Array:
    """Return an array, letting each piece go with its last use."""
    buffer = BytesIO()
    for piece in _pieces(content):
        whole = contents[piece]
        body = memoryview(whole)[whole.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
        budget.built(len(body))
        buffer.write(body)
        uses[piece] -= 1
        if not uses[piece]:
            del contents[piece]
    described = json.loads(get_object_body(content, Array))
    return Array(
        dtype=described["dtype"],
        shape=tuple(described["shape"]),
        stype=described["stype"],
        data=buffer.getvalue(),
    )


def _mark(changed: Any, original: Any) -> Any:
    changed.original = original
    return changed


def _original(function: Any) -> Any:
    """Return flwr's own function where it was replaced before."""
    return getattr(function, "original", function)
