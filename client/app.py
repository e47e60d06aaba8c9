"""The hospital's Flower app, as thin as it can be: a message goes to the training worker, its answer back.

Flower starts a process for every message. This one imports neither torch nor anything that reads images, so
that it starts quickly and stays small; networks and caches are warm in the worker. It interprets nothing.
"""

import logging
import math
import socket
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedcad.client.withheld import AWAY_CODE, ERROR_CODE, withhold_reason
from fedcad.client.worker_protocol import (
    DTYPES,
    Fill,
    WorkerMessage,
    connect,
    fill_all,
    receive_message,
    send_message,
)
from fedcad.shared.errors import ProtocolError
from fedcad.shared.flower_records import records_of

SOCKET_KEY = "worker-socket"
"""Key of the node's configuration that names the worker's socket."""
PAUSES_S = (0.2, 1.0, 3.0, 10.0, 30.0)
"""How long to wait before each new try where the worker ended or nobody listens."""
_AWAY = "the site's training worker gives no answer; the site's own log says why"
_LOG = logging.getLogger("fedcad.client")


def make_client_app(pauses_s: Sequence[float] = PAUSES_S) -> ClientApp:
    """Return the app.

    Args:
        pauses_s: As :data:`PAUSES_S`; their number bounds how often a message is tried again.
    """
    client_app = ClientApp()

    @client_app.query("ready")
    def ready(message: Message, context: Context) -> Message:
        return _reply("ready", message, context, pauses_s)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return _reply("train", message, context, pauses_s)

    return client_app


def _reply(kind: str, message: Message, context: Context, pauses_s: Sequence[float]) -> Message:
    # The hospital's boundary: Flower would send the text of whatever is raised to the coordinator.
    try:
        path = Path(str(context.node_config[SOCKET_KEY]))
        answer = _forward(path, to_worker(kind, message.content), pauses_s)
        if answer is None:
            return Message(Error(AWAY_CODE, _AWAY), reply_to=message)
        if answer.kind == "error":
            return Message(Error(ERROR_CODE, answer.texts["reason"]), reply_to=message)
        return Message(from_worker(answer), reply_to=message)
    except Exception as error:  # noqa: BLE001
        return Message(Error(ERROR_CODE, withhold_reason(error)), reply_to=message)


def _take(fill: Fill, shape: list[int], dtype: "np.dtype[Any]") -> Array:
    """Receive an array where Flower wants it, behind the header of its ``.npy`` bytes.

    Why: a copy would cost a gigabyte where the parameters have one.
    """
    header = _header(tuple(shape), dtype)
    buffer = BytesIO(bytes(len(header) + math.prod(shape) * dtype.itemsize))
    with buffer.getbuffer() as view, view[len(header) :] as values:
        view[: len(header)] = header
        fill_all(fill, values)
    return Array(dtype=dtype.name, shape=tuple(shape), stype="numpy.ndarray", data=buffer.getvalue())


def _header(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> bytes:
    """Return the beginning of an array's ``.npy`` bytes, version 1.0, as ``np.save`` writes it."""
    header = BytesIO()
    npy.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _forward(path: Path, message: WorkerMessage, pauses_s: Sequence[float]) -> WorkerMessage | None:
    """Send a message and wait for its answer, however long; again where the worker ended meanwhile.

    Returns:
        The answer, or None where the tries have run out.
    """
    for pause in (*pauses_s, None):
        try:
            with connect(path) as connection:
                answer = _ask(connection, message)
            if answer is not None:
                return answer
            reason = "the worker ended before it answered"
        except OSError as error:
            reason = f"{type(error).__name__}: {error.strerror or 'the connection broke'}"
        if pause is not None:
            _LOG.warning("the training worker cannot be reached (%s); trying again in %g s", reason, pause)
            time.sleep(pause)
    _LOG.error("the training worker gave no answer in %d tries (%s)", len(pauses_s) + 1, reason)
    return None


def _ask(connection: socket.socket, message: WorkerMessage) -> WorkerMessage | None:
    send_message(connection, message)
    return receive_message(connection, take=_take)


def to_worker(kind: str, content: RecordDict) -> WorkerMessage:
    """Return a Flower message's content for the worker; arrays are views of the bytes that arrived.

    Raises:
        ProtocolError: A record or an array is of a kind that never travels.
    """
    texts = records_of(content, ConfigRecord)
    arrays = records_of(content, ArrayRecord)
    if len(texts) + len(arrays) != len(content):
        raise ProtocolError("the message has a record that is neither a text nor arrays")
    return WorkerMessage(
        kind,
        {name: _text(record) for name, record in texts.items()},
        {
            record: {str(name): _values(array) for name, array in named.items()}
            for record, named in arrays.items()
        },
    )


def from_worker(answer: WorkerMessage) -> RecordDict:
    """Return a worker's answer, its arrays Flower's, as the content of a message."""
    content = RecordDict()
    for name, text in answer.texts.items():
        content[name] = ConfigRecord({"json": text})
    for name, arrays in answer.arrays.items():
        content[name] = ArrayRecord(dict(arrays))
    return content


def _text(record: ConfigRecord) -> str:
    text = record.get("json")
    if set(record) != {"json"} or not isinstance(text, str):
        raise ProtocolError("a record of the message is not one JSON text")
    return text


def _values(array: Array) -> NDArray[Any]:
    """Return a view of an array's bytes, which must begin with the one right header of their description."""
    if array.stype != "numpy.ndarray" or array.dtype not in DTYPES:
        raise ProtocolError("an array of the message is of a type that never travels")
    dtype, shape, data = DTYPES[array.dtype], tuple(array.shape), array.data
    try:
        expected = _header(shape, dtype)
        if not data.startswith(expected):
            raise ProtocolError("an array's bytes are not what its description says")
        return np.frombuffer(data, dtype=dtype, offset=len(expected)).reshape(shape)
    except ValueError as error:
        raise ProtocolError("an array's bytes are too few, too many or not an array") from error


app = make_client_app()
