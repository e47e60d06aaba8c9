"""Persistent worker processes for the in-process engine.

Each worker has a thread here that takes jobs from one queue, sends them, and waits for the answers. A worker
that dies is replaced; its job fails with a reason and the others go on.
"""

import itertools
import multiprocessing
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from fedcad.simulations.engines.early import start_fork_server
from fedcad.simulations.engines.packing import Packed, borrow
from fedcad.simulations.engines.shared_arrays import SharedBlock
from fedcad.simulations.engines.worker import Job, Result, work

_KEPT_BLOCKS = 3


class WorkerDied(Exception):  # noqa: N818 - an event, turned into an error reply
    """The process that worked on a job is gone."""


class PoolClosed(Exception):  # noqa: N818 - an event
    """The pool was closed or killed and takes no more jobs."""


class JobFailed(Exception):  # noqa: N818 - an answer, turned into an error reply
    """The client app answered with an error."""


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Worker processes that run one client app; use as a context manager."""

    def __init__(self, make_app: Callable[[], ClientApp], workers: int) -> None:
        """Start workers.

        Args:
            make_app: A picklable function that returns the client app, called once in each worker.
            workers: Number of processes.
        """
        start_fork_server()
        self._context = multiprocessing.get_context("forkserver")
        self._jobs: queue.SimpleQueue[tuple[Job, SharedBlock | None, Future[RecordDict]] | None]
        self._jobs = queue.SimpleQueue()
        self.workers = workers
        self._make_app = make_app
        self._workers: list[_Worker] = []
        self._is_closed = False
        self._lock = threading.Lock()
        self.is_killed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, block: SharedBlock | None) -> "Future[RecordDict]":
        """Queue a job; jobs are taken in the order in which they come.

        Raises:
            PoolClosed: Nobody is left to do it.
        """
        future: Future[RecordDict] = Future()
        with self._lock:
            if self._is_closed:
                raise PoolClosed("the workers have been ended; make a new pool")
            self._jobs.put((job, block, future))
        return future

    def close(self) -> None:
        """Let the workers finish what they have and end them."""
        self._stop_threads()
        for thread in self._threads:
            thread.join(timeout=60)

    def __enter__(self) -> "WorkerPool":
        """Return the pool."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the workers; at once where something went wrong or Ctrl-C was pressed."""
        if kind is None:
            self.close()
        else:
            self.kill()

    def kill(self) -> None:
        """End the workers at once; every job that is not done fails."""
        with self._lock:
            self.is_killed = True
            workers = list(self._workers)
        for worker in workers:
            worker.kill()
        self._stop_threads()

    @contextmanager
    def killed_on_error(self) -> Iterator[None]:
        """Kill the workers when the block raises: threads that wait for them then end as well.

        Use it inside the context of an executor, whose exit would otherwise wait for all of its work.
        """
        try:
            yield
        except BaseException:
            self.kill()
            raise

    def _stop_threads(self) -> None:
        with self._lock:
            if not self._is_closed:
                for _ in self._threads:
                    self._jobs.put(None)
            self._is_closed = True

    def _serve(self) -> None:
        """Drive one worker process, replacing it when it dies."""
        worker: _Worker | None = None
        with suppress(OSError, PoolClosed):
            worker = self._start()
        while (task := self._jobs.get()) is not None:
            job, block, future = task
            worker = self._settle(worker, job, block, future)
            del task, job, block, future
        if worker is not None:
            self._bury(worker)

    def _settle(
        self, worker: "_Worker | None", job: Job, block: SharedBlock | None, future: "Future[RecordDict]"
    ) -> "_Worker | None":
        """Settle one job's future, whatever happens, and return the worker for the next job."""
        try:
            worker = worker or self._start()
            future.set_result(worker.run(job, block))
        except (JobFailed, PoolClosed) as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - the process boundary: nobody may wait for ever
            is_gone = isinstance(error, EOFError | OSError)
            code = self._bury(worker) if worker is not None else None
            reason = f"the site's process died (exit code {code})" if is_gone else f"{error!r}"
            future.set_exception(WorkerDied(reason))
            return None
        return worker

    def _bury(self, worker: "_Worker") -> int | None:
        """End a worker, let its blocks go, and return its exit code."""
        with self._lock:
            self._workers.remove(worker)
        return worker.end()

    def _start(self) -> "_Worker":
        """Start a worker, unless the pool was killed meanwhile."""
        if self.is_killed:
            raise PoolClosed("the workers have been ended")
        worker = _Worker(self._context, self._make_app)
        with self._lock:
            self._workers.append(worker)
            is_late = self.is_killed
        if is_late:
            worker.kill()
        return worker


class _Worker:
    """One process and our end of its connection."""

    def __init__(self, context: Any, make_app: Callable[[], ClientApp]) -> None:
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=work, args=(theirs, os.getpid(), make_app), daemon=True
        )
        self._process.start()
        theirs.close()
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._replies = _ReplyBlocks()

    def run(self, job: Job, block: SharedBlock | None) -> RecordDict:
        """Run one job and return the content of its reply, as read-only views of the worker's memory."""
        if block is not None and block.identity not in self._sent:
            self._connection.send("block")
            block.send(self._connection, self._pid())
            self._sent[block.identity] = None
            while len(self._sent) > _KEPT_BLOCKS:
                self._sent.popitem(last=False)
        slot = self._replies.unread()
        self._connection.send(replace(job, slot=slot))
        result: Result = self._connection.recv()
        if result.has_new_block:
            self._replies.keep(slot, SharedBlock.receive(self._connection))
        if result.content is None:
            raise JobFailed(result.error)
        return self._replies.borrow(slot, result.content)

    def end(self) -> int | None:
        """Close the connection, wait for the process to go, and return its exit code."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _pid(self) -> int:
        if self._process.pid is None:
            raise ValueError("the process was started and has an id")
        return self._process.pid


class _ReplyBlocks:
    """A worker's reply blocks, by slot; one that somebody still reads is not written again.

    Why: a reply of many megabytes reaches the sum without being copied, while the worker goes on.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, SharedBlock] = {}
        self._readers: dict[int, Callable[[], object]] = {}

    def unread(self) -> int:
        """Return the first slot whose block nobody reads."""
        return next(slot for slot in itertools.count() if self._reader(slot) is None)

    def keep(self, slot: int, block: SharedBlock) -> None:
        """Take a new block for a slot."""
        self._blocks[slot] = block

    def borrow(self, slot: int, content: Packed) -> RecordDict:
        """Return a content as views of a slot's block, which is read until all of them have gone."""
        found, self._readers[slot] = borrow(content, self._blocks.get(slot))
        return found

    def _reader(self, slot: int) -> object:
        return self._readers[slot]() if slot in self._readers else None
