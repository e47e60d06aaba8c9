"""The default engine: an in-memory Flower Grid over persistent worker processes."""

import itertools
import queue
import time
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedcad.shared.flower_records import records_of
from fedcad.simulations.engines.flower_internals import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)
from fedcad.simulations.engines.packing import arrays_of, layout_arrays, pack, write_arrays
from fedcad.simulations.engines.pool import PoolClosed, WorkerPool
from fedcad.simulations.engines.shared_arrays import Placement, SharedBlock
from fedcad.simulations.engines.worker import Job

_ERROR_CODE = 2
_WAIT_S = 0.5
_numbers = itertools.count(1)


class InProcessGrid(Grid):
    """Runs every pushed message on the pool; replies come back in the order in which they finish."""

    def __init__(self, pool: WorkerPool, nodes: Mapping[int, Mapping[str, Any]]) -> None:
        """Use a pool.

        Args:
            pool: Worker processes.
            nodes: Node id → node configuration.
        """
        enter_task()
        self._pool = pool
        self._nodes = nodes
        self._finished: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._early: dict[str, Message] = {}
        self._blocks: dict[tuple[int, ...], tuple[SharedBlock, dict[str, tuple[Placement, ...]]]] = {}

    def set_run(self, run: Run) -> None:
        """Do nothing: a grid in memory has one run."""

    @property
    def run(self) -> Run:
        """Refuse: a grid in memory has no Flower run."""
        raise NotImplementedError("a simulation in memory has no Flower run")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages and return their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return at most one finished reply, waiting a moment for it: one update in memory at a time.

        Replies to other messages are kept until they are asked for.

        Raises:
            PoolClosed: The pool was killed, so that no reply can be trusted to be a site's own failure.
        """
        wanted, end = set(message_ids), time.monotonic() + _WAIT_S
        for identity in wanted & self._early.keys():
            return [self._early.pop(identity)]
        while (left := end - time.monotonic()) > 0:
            try:
                message = self._finished.get(timeout=left)
            except queue.Empty:
                break
            if self._pool.is_killed:
                break
            identity = message.metadata.reply_to_message_id
            if identity in wanted:
                return [message]
            self._early[identity] = message
        if self._pool.is_killed:
            raise PoolClosed("the simulation was ended")
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies."""
        del timeout
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while len(replies) < len(waiting):
            replies.extend(self.pull_messages(waiting))
        return replies

    def _push(self, message: Message) -> str:
        identity = f"m{next(_numbers)}"
        name_message(message, identity)
        block, placements = self._block_of(message.content)
        metadata = metadata_of(message)
        node = message.metadata.dst_node_id
        job = Job(
            node=node,
            node_config=self._nodes[node],
            metadata=metadata,
            block=block.identity if block is not None else None,
            content=pack(message.content, placements),
        )
        self._pool.submit(job, block).add_done_callback(partial(self._finish, metadata))
        return identity

    def _block_of(self, content: RecordDict) -> tuple[SharedBlock | None, dict[str, tuple[Placement, ...]]]:
        """Return the block that holds a content's arrays; messages that share them share the block."""
        records = list(records_of(content, ArrayRecord).values())
        if not records:
            return None, {}
        key = tuple(id(record) for record in records)
        if key not in self._blocks:
            arrays = arrays_of(content)
            placements, size = layout_arrays(arrays)
            block = SharedBlock.create(size)
            write_arrays(arrays, placements, block)
            self._blocks[key] = (block, placements)
            for record in records:
                weakref.finalize(record, self._blocks.pop, key, None)
        return self._blocks[key]

    def _finish(self, metadata: Mapping[str, Any], future: "Future[RecordDict]") -> None:
        """Turn a finished job into a reply message."""
        error = future.exception()
        body = future.result() if error is None else Error(_ERROR_CODE, str(error))
        self._finished.put(make_message(reply_metadata(metadata, time.time()), body))
