"""What one worker process of the in-process engine does: run the client app on one message after another.

Workers are forked from a warm server process that has imported this module, so that a new worker starts in
milliseconds. Each computes with one thread: the same bits whatever the number of workers.
"""

import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcad.shared.errors import FedCADError
from fedcad.shared.flower_internals.messages import enter_task, make_message
from fedcad.simulations.engines.packing import (
    Packed,
    arrays_of,
    layout_arrays,
    pack,
    unpack,
    write_arrays,
)
from fedcad.simulations.engines.shared_arrays import SharedBlock

_KEPT_BLOCKS = 4


@dataclass(frozen=True)
class Job:
    """One message for one node.

    Attributes:
        node: Flower node id.
        node_config: The node's configuration.
        metadata: The message's metadata, by the names of Flower's ``Metadata``.
        block: Identity of the block that holds its arrays; None without arrays.
        content: Everything else.
        slot: Which of the worker's reply blocks nobody reads any more; the answer goes there.
    """

    node: int
    node_config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    block: str | None
    content: Packed
    slot: int = 0


@dataclass(frozen=True)
class Result:
    """A reply or an error; a new block for replies follows where ``has_new_block``."""

    content: Packed | None = None
    error: str = ""
    has_new_block: bool = False


class _Replies:
    """The worker's own blocks, one for each slot, grown when a reply needs more."""

    def __init__(self, connection: Connection, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._blocks: dict[int, SharedBlock] = {}

    def send(self, content: RecordDict, slot: int) -> None:
        records = arrays_of(content)
        placements, size = layout_arrays(records)
        known = self._blocks.get(slot)
        block = known if known is not None and known.size >= size else SharedBlock.create(size)
        self._blocks[slot] = block
        write_arrays(records, placements, block)
        self._connection.send(Result(pack(content, placements), has_new_block=block is not known))
        if block is not known:
            block.send(self._connection, self._parent)


def work(connection: Connection, parent: int, make_app: Callable[[], ClientApp]) -> None:
    """Answer jobs until the other end closes the connection or sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    enter_task()
    client_app, replies = make_app(), _Replies(connection, parent)
    blocks: OrderedDict[str, SharedBlock] = OrderedDict()
    message: Message | None = None
    while (job := _next(connection, blocks)) is not None:
        # The process boundary: whatever goes wrong becomes an error reply that names the site's round.
        try:
            message = _message(job, blocks)
            reply = client_app(message, _context(job))
        except FedCADError as error:
            connection.send(Result(error=str(error)))
        except Exception as error:  # noqa: BLE001
            connection.send(Result(error=f"{type(error).__name__}: {error}"))
        else:
            if reply.has_error():
                connection.send(Result(error=str(reply.error.reason)))
            else:
                replies.send(reply.content, job.slot)
            del reply
        message = None


def _end_with_parent() -> None:
    """End this process when the simulation's has gone, even by kill -9 in the middle of a job.

    Why: a worker that trained on would write a site's state under the feet of the resumed run.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _next(connection: Connection, blocks: OrderedDict[str, SharedBlock]) -> Job | None:
    """Wait for the next job; take the blocks that are sent before it."""
    while True:
        try:
            received = connection.recv()
        except (EOFError, ConnectionError):
            return None
        if received != "block":
            job: Job | None = received
            return job
        block = SharedBlock.receive(connection, is_writable=False)
        blocks[block.identity] = block
        # A block may be sent again; the sender counts it as its newest then, and so must we.
        blocks.move_to_end(block.identity)
        while len(blocks) > _KEPT_BLOCKS:
            blocks.popitem(last=False)


def _context(job: Job) -> Context:
    return Context(
        run_id=1, node_id=job.node, node_config=dict(job.node_config), state=RecordDict(), run_config={}
    )


def _message(job: Job, blocks: Mapping[str, SharedBlock]) -> Message:
    block = blocks[job.block] if job.block is not None else None
    return make_message(job.metadata, unpack(job.content, block, copy=False))
