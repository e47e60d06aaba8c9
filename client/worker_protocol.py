"""How the thin Flower app and the training worker talk: one frame each way over a Unix stream socket.

A frame is ``FCW1``, the header's length (4 bytes, big-endian), the header (canonical JSON: version, kind,
texts, and of every array record, name, type and shape), then the arrays' bytes in that order, little-endian,
in C order. The same frame is what the outbox keeps on disk.

Why not pickle or Flower's records: the worker must not execute what arrives, must know sizes before it
allocates, and needs no Flower.
"""

import json
import math
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.canonical import canonical_json
from fedcad.shared.errors import ProtocolError

VERSION = 1
LARGEST_HEADER_BYTES = 24 * 2**20
"""A contract's text has at most 8 MiB and grows where JSON escapes it."""
LARGEST_ARRAYS_BYTES = 2**35
MOST_ARRAYS = 4096
MOST_TEXTS = 64
DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") for name in ("float32", "float16", "int64")
}
"""Types of arrays that may travel."""
_MAGIC = b"FCW1"
_PREFIX = struct.Struct(">4sI")
_PEER = struct.Struct("3i")
_LONGEST_NAME = 100
_MOST_AXES = 8

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
Fill = Callable[[memoryview], int]
"""Puts some bytes into a buffer and returns how many; 0 at the end, as ``recv_into`` and ``readinto`` do."""
Take = Callable[[Fill, list[int], "np.dtype[Any]"], Any]
"""Receives an array of a shape and type whose size was checked, and returns it in the form that is wanted."""


@dataclass(frozen=True)
class WorkerMessage:
    """What app and worker tell each other.

    Attributes:
        kind: ``ready`` or ``train`` from the app; ``answer`` or ``error`` from the worker.
        texts: Texts by the name of their record; of an error, ``reason``.
        arrays: Arrays by record and name; float32, float16 or int64.
    """

    kind: str
    texts: Mapping[str, str] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


def frame(message: WorkerMessage) -> Iterator[memoryview]:
    """Yield the bytes of a message, arrays without a copy where they are contiguous.

    Raises:
        ProtocolError: An array's type may not travel, or the message is too large.
    """
    listed = [
        (record, name, each) for record, named in message.arrays.items() for name, each in named.items()
    ]
    described = [[record, name, _dtype_name(each), list(each.shape)] for record, name, each in listed]
    plain = {
        "version": VERSION,
        "kind": message.kind,
        "texts": dict(message.texts),
        "records": list(message.arrays),
        "arrays": described,
    }
    header = canonical_json(plain)
    _check_header(plain)
    if len(header) > LARGEST_HEADER_BYTES:
        raise ProtocolError(f"a message's texts have {len(header)} bytes; at most {LARGEST_HEADER_BYTES} may")
    yield memoryview(_PREFIX.pack(_MAGIC, len(header)))
    yield memoryview(header)
    for _, _, each in listed:
        # An empty part would be sent to an end that has everything, and may have closed already.
        if each.size:
            yield _bytes_of(np.ascontiguousarray(each))


def _dtype_name(array: NDArray[Any]) -> str:
    if array.dtype.name not in DTYPES or array.dtype != DTYPES[array.dtype.name]:
        raise ProtocolError(f"an array of type {array.dtype.str} may not travel; {', '.join(DTYPES)} may")
    return array.dtype.name


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read_frame(
    fill: Fill, *, largest_bytes: int = LARGEST_ARRAYS_BYTES, take: Take | None = None
) -> WorkerMessage | None:
    """Read one message that may be hostile; arrays are received in place, and are read-only afterwards.

    Args:
        fill: Where bytes come from.
        largest_bytes: Most bytes of all arrays together.
        take: How arrays are received; as read-only ndarrays if None.

    Returns:
        The message, or None where the other end closed before it began one.

    Raises:
        ProtocolError: It is not a message of this version, or larger than allowed; nothing was allocated.
        ConnectionError: The other end closed in the middle of the message.
    """
    prefix = bytearray(_PREFIX.size)
    got = fill(memoryview(prefix))
    if not got:
        return None
    fill_all(fill, memoryview(prefix)[got:])
    magic, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC or length > LARGEST_HEADER_BYTES:
        raise ProtocolError(f"this is not a message of FedCAD's worker, or its header has {length} bytes")
    text = bytearray(length)
    fill_all(fill, memoryview(text))
    plain = _read_header(bytes(text))
    _check_size(plain["arrays"], largest_bytes)
    arrays: dict[str, dict[str, Any]] = {record: {} for record in plain["records"]}
    for record, name, dtype, shape in plain["arrays"]:
        arrays[record][name] = (take or _take)(fill, shape, DTYPES[dtype])
    return WorkerMessage(plain["kind"], plain["texts"], arrays)


def _take(fill: Fill, shape: list[int], dtype: "np.dtype[Any]") -> NDArray[Any]:
    values = np.empty(shape, dtype)
    fill_all(fill, _bytes_of(values))
    values.flags.writeable = False
    return values


def fill_all(fill: Fill, buffer: memoryview) -> None:
    """Fill a whole buffer.

    Raises:
        ConnectionError: The other end closed before.
    """
    while len(buffer):
        got = fill(buffer)
        if not got:
            raise ConnectionError(f"the other end closed with {len(buffer)} bytes missing")
        buffer = buffer[got:]


def _read_header(text: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(text)
        is_canonical = canonical_json(plain) == text
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError("the header of a worker's message is not JSON") from error
    if not is_canonical or not isinstance(plain, dict):
        raise ProtocolError("the header of a worker's message is not canonical JSON of an object")
    _check_header(plain)
    return plain


def _check_header(plain: Mapping[str, Any]) -> None:
    """Check every field of a header; types and bounds only."""
    if plain.get("version") != VERSION or isinstance(plain["version"], bool):
        raise ProtocolError(f"a worker's message has another version than {VERSION}; restart the client")
    texts, records, arrays = plain.get("texts"), plain.get("records"), plain.get("arrays")
    is_right = (
        set(plain) == {"version", "kind", "texts", "records", "arrays"}
        and _is_name(plain["kind"])
        and isinstance(texts, dict)
        and len(texts) <= MOST_TEXTS
        and all(_is_name(name) and isinstance(text, str) for name, text in texts.items())
        and _are_names(records)
        and isinstance(arrays, list)
        and len(arrays) <= MOST_ARRAYS
        and all(_is_array(each, records) for each in arrays)
        and len({(record, name) for record, name, _, _ in arrays}) == len(arrays)
    )
    if not is_right:
        raise ProtocolError("the header of a worker's message has a field missing, wrong or too long")


def _are_names(records: object) -> bool:
    if not isinstance(records, list) or len(records) > MOST_TEXTS:
        return False
    return all(_is_name(record) for record in records) and len(set(records)) == len(records)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME


def _is_array(described: object, records: Any) -> bool:
    if not isinstance(described, list) or len(described) != 4:
        return False
    record, name, dtype, shape = described
    return (
        isinstance(record, str)
        and record in records
        and _is_name(name)
        and isinstance(dtype, str)
        and dtype in DTYPES
        and isinstance(shape, list)
        and len(shape) <= _MOST_AXES
        and all(type(length) is int and 0 <= length <= LARGEST_ARRAYS_BYTES for length in shape)
    )


def _check_size(arrays: list[Any], largest_bytes: int) -> None:
    # An axis of 0 counts as 1: NumPy refuses huge other axes beside it.
    counted = [(DTYPES[dtype].itemsize, [max(1, axis) for axis in shape]) for _, _, dtype, shape in arrays]
    size = sum(bytes_each * math.prod(axes) for bytes_each, axes in counted)
    if size > largest_bytes:
        raise ProtocolError(
            f"a worker's message has {size} bytes of arrays; at most {largest_bytes} are read"
        )


def send_message(connection: socket.socket, message: WorkerMessage) -> None:
    """Send a message.

    Raises:
        ProtocolError: It may not travel.
        OSError: The other end is gone.
    """
    for part in frame(message):
        connection.sendall(part)


def receive_message(
    connection: socket.socket, *, largest_bytes: int = LARGEST_ARRAYS_BYTES, take: Take | None = None
) -> WorkerMessage | None:
    """Receive a message; arguments, result and errors are those of :func:`read_frame`."""
    return read_frame(connection.recv_into, largest_bytes=largest_bytes, take=take)


def write_message(stream: IO[bytes], message: WorkerMessage) -> None:
    """Write a message to a file, as it is sent."""
    for part in frame(message):
        stream.write(part)


def connect(path: Path) -> socket.socket:
    """Connect to a worker's socket and check that this user owns the other end.

    Raises:
        OSError: Nobody listens there.
        ProtocolError: Another user does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _Reachable(path) as address:
            connection.connect(address)
        check_peer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def bind(listener: socket.socket, path: Path) -> None:
    """Give a socket its name in the file system; raises OSError where there is one already."""
    with _Reachable(path) as address:
        listener.bind(address)


class _Reachable:
    """A socket's path by way of its open folder: a Unix address has at most 107 bytes, a path more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *error: object) -> None:
        os.close(self._folder)


def check_peer(connection: socket.socket) -> None:
    """Raise ProtocolError unless this user owns the process at the other end (``unix(7)``, SO_PEERCRED)."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if user != os.getuid():
        raise ProtocolError(f"the process at the other end of the worker's socket belongs to user {user}")
