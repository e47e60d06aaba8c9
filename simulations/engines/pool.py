"""Persistent worker processes for the in-process engine.

Each worker has a thread here that takes jobs from one queue, sends them, and waits for the answers. A worker
that dies is replaced; its job fails with a reason and the others go on.
"""

import multiprocessing
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from fedcad.simulations.engines.packing import unpack
from fedcad.simulations.engines.shared_arrays import SharedBlock
from fedcad.simulations.engines.worker import Job, Result, work

_WARM = ["fedcad.simulations.engines.worker", "fedcad.simulations.engines.simulated_client"]
_KEPT_BLOCKS = 3


class WorkerDied(Exception):  # noqa: N818 - an event, turned into an error reply
    """The process that worked on a job is gone."""


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
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_WARM)
        self._jobs: queue.SimpleQueue[tuple[Job, SharedBlock | None, Future[RecordDict]] | None]
        self._jobs = queue.SimpleQueue()
        self.workers = workers
        self._make_app = make_app
        self._workers: list[_Worker] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, block: SharedBlock | None) -> "Future[RecordDict]":
        """Queue a job; jobs are taken in the order in which they come."""
        future: Future[RecordDict] = Future()
        self._jobs.put((job, block, future))
        return future

    def close(self) -> None:
        """Let the workers finish what they have and end them."""
        for _ in self._threads:
            self._jobs.put(None)
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
        """End the workers at once."""
        for worker in list(self._workers):
            worker.kill()

    def _serve(self) -> None:
        """Drive one worker process, replacing it when it dies."""
        worker = self._start()
        while (task := self._jobs.get()) is not None:
            job, block, future = task
            try:
                future.set_result(worker.run(job, block))
            except JobFailed as error:
                future.set_exception(error)
            except (EOFError, ConnectionError, OSError):
                code = worker.end()
                self._workers.remove(worker)
                future.set_exception(WorkerDied(f"the site's process died (exit code {code})"))
                worker = self._start()
            del task, job, block, future
        worker.end()

    def _start(self) -> "_Worker":
        worker = _Worker(self._context, self._make_app)
        self._workers.append(worker)
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
        self._replies: SharedBlock | None = None

    def run(self, job: Job, block: SharedBlock | None) -> RecordDict:
        """Run one job and return the content of its reply, copied out of the worker's memory."""
        if block is not None and block.identity not in self._sent:
            self._connection.send("block")
            block.send(self._connection, self._pid())
            self._sent[block.identity] = None
            while len(self._sent) > _KEPT_BLOCKS:
                self._sent.popitem(last=False)
        self._connection.send(job)
        result: Result = self._connection.recv()
        if result.has_new_block:
            self._replies = SharedBlock.receive(self._connection)
        if result.content is None:
            raise JobFailed(result.error)
        return unpack(result.content, self._replies, copy=True)

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
