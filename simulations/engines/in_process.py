"""The default engine: an in-memory Flower Grid over persistent worker processes."""

import itertools
import mmap
import queue
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedcad.shared.flower_internals.messages import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)
from fedcad.shared.flower_records import records_of
from fedcad.simulations.engines.packing import arrays_of, layout_arrays, pack, write_arrays
from fedcad.simulations.engines.pool import PoolClosed, WorkerPool
from fedcad.simulations.engines.shared_arrays import Placement, SharedBlock
from fedcad.simulations.engines.worker import Job

_ERROR_CODE = 2
_WAIT_S = 0.5
_LARGEST_WASTE = 4
"""A block of up to so many times the wanted size is used again."""
_numbers = itertools.count(1)


@dataclass(eq=False)
class _Lent:
    """A block that workers read, and the jobs that may still do so."""

    block: SharedBlock
    placements: dict[str, tuple[Placement, ...]]
    jobs: list["Future[RecordDict]"] = field(default_factory=list)

    def fits(self, size: int) -> bool:
        """Whether every job is done, so that nobody reads the block, and it has about the wanted size."""
        is_close = size <= self.block.size <= max(_LARGEST_WASTE * size, mmap.PAGESIZE)
        return is_close and all(job.done() for job in self.jobs)


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
        self._blocks: dict[tuple[int, ...], _Lent] = {}
        self._left: deque[_Lent] = deque()

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
        lent = self._lent_for(message.content)
        block = lent.block if lent is not None else None
        metadata = metadata_of(message)
        node = message.metadata.dst_node_id
        job = Job(
            node=node,
            node_config=self._nodes[node],
            metadata=metadata,
            block=block.identity if block is not None else None,
            content=pack(message.content, lent.placements if lent is not None else {}),
        )
        future = self._pool.submit(job, block)
        if lent is not None:
            lent.jobs.append(future)
        future.add_done_callback(partial(self._finish, metadata))
        return identity

    def _lent_for(self, content: RecordDict) -> "_Lent | None":
        """Return the block that holds a content's arrays; messages that share them share the block."""
        records = list(records_of(content, ArrayRecord).values())
        if not records:
            return None
        key = tuple(id(record) for record in records)
        if key not in self._blocks:
            arrays = arrays_of(content)
            placements, size = layout_arrays(arrays)
            block = self._left_block(size) or SharedBlock.create(size)
            write_arrays(arrays, placements, block)
            self._blocks[key] = _Lent(block, placements)
            for record in records:
                weakref.finalize(record, self._leave, key)
        return self._blocks[key]

    def _leave(self, key: tuple[int, ...]) -> None:
        """Keep the block of records that have gone for the next ones."""
        lent = self._blocks.pop(key, None)
        if lent is not None:
            self._left.append(lent)

    def _left_block(self, size: int) -> SharedBlock | None:
        """Return a block that nobody reads any more, under a new name; forget all others.

        Why: fresh pages cost ten times what it takes to write to them, in each round while every site waits.
        """
        found: SharedBlock | None = None
        while self._left:
            lent = self._left.popleft()
            if found is None and lent.fits(size):
                found = lent.block
        if found is not None:
            found.rename()
        return found

    def _finish(self, metadata: Mapping[str, Any], future: "Future[RecordDict]") -> None:
        """Turn a finished job into a reply message."""
        error = future.exception()
        body = future.result() if error is None else Error(_ERROR_CODE, str(error))
        self._finished.put(make_message(reply_metadata(metadata, time.time()), body))
