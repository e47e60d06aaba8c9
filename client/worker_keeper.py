"""Starts the training worker when somebody connects to its socket, and never more than one.

Why: networks and caches must be warm while a study runs, and take no memory while none does. The keeper holds
the listening socket and hands it to each worker, so that a connection made while none lives waits for the
next one instead of failing. The keeper imports no torch: it lives in the client's supervisor.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedcad.client.worker_protocol import bind

LISTENER = 3
"""Descriptor under which a worker inherits the listening socket."""
QUICK_S = 20.0
"""A worker that fails within this time counts as one that cannot start."""
MOST_FAILURES = 3
"""After so many failures in a row nobody waits for a worker any more: who has connected is turned away."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
_STOP_S = 20.0
_BACKLOG = 16
_LARGEST_LOG_BYTES = 2**20


class WorkerKeeper:
    """Owner of the worker's socket. Use as a context manager, or call :meth:`stop`."""

    def __init__(
        self,
        socket_path: Path,
        *,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen; a socket that is there already is replaced.

        Whoever calls this holds the site's lock. So the socket is a dead client's, even where that one's
        worker still listens, until it has written its checkpoint.

        Args:
            socket_path: Where to listen; its folder is made private to this user, the socket too.
            command: How a worker is started, from :func:`worker_command`.
            log: File to which its output is appended; begun anew with a worker where it is longer than 1 MiB.
            environment: Its environment; this process's own if None.
            clock: Seconds that never go back.
        """
        self._path = socket_path
        self._command = [str(part) for part in command]
        self._log = log
        self._environment = dict(os.environ if environment is None else environment)
        self._clock = clock
        self._listener = _listen(socket_path)
        self._inode = socket_path.stat().st_ino
        self._worker: _Worker | None = None
        self._failures = 0
        self._not_before = clock()

    def __enter__(self) -> "WorkerKeeper":
        """Return the keeper."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the worker."""
        self.stop()

    @property
    def worker(self) -> int | None:
        """Process number of the worker, or None where none lives."""
        return self._worker.number if self._worker else None

    @property
    def failures(self) -> int:
        """How often in a row the worker ended with an error soon after its start."""
        return self._failures

    def poll(self, timeout: float) -> None:
        """Wait for a connection, and start a worker for it, or for the worker's end; at most the timeout.

        Args:
            timeout: Seconds.
        """
        if self._worker is not None:
            if self._worker.wait(timeout):
                self._reap()
            return
        pause = self._not_before - self._clock()
        if pause > 0:
            time.sleep(min(pause, timeout))
        elif select.select([self._listener], [], [], timeout)[0]:
            self._start()

    def stop(self) -> None:
        """Stop the worker, which writes its checkpoint, and give up the socket."""
        if self._worker is not None:
            self._worker.end(_STOP_S)
            self._reap()
        self._listener.close()
        # Not the socket of a client that was started meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _start(self) -> None:
        self._started = self._clock()
        try:
            self._worker = _Worker(self._command, self._environment, self._log, self._listener)
        except OSError:
            # No process or no descriptor is left on this machine; there may be one later.
            self._ended(is_failure=True)

    def _reap(self) -> None:
        if self._worker is not None:
            code = self._worker.close()
            self._worker = None
            self._ended(is_failure=code != 0 and self._clock() - self._started < QUICK_S)

    def _ended(self, *, is_failure: bool) -> None:
        self._failures = self._failures + 1 if is_failure else 0
        # The first failure may be a kill -9: only what fails again waits.
        waits = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 2, 10))
        self._not_before = self._clock() + (waits if self._failures > 1 else 0.0)
        if self._failures >= MOST_FAILURES:
            self._turn_away()

    def _turn_away(self) -> None:
        """Close all connections that wait, so that the other end tells its coordinator."""
        while select.select([self._listener], [], [], 0)[0]:
            self._listener.accept()[0].close()


class _Worker:
    """One worker process."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log: Path, listener: socket.socket
    ) -> None:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_full = log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_full else 0)
        written = os.open(log, flags, 0o600)
        try:
            self.number = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, written, 1),
                    (os.POSIX_SPAWN_DUP2, written, 2),
                    (os.POSIX_SPAWN_DUP2, listener.fileno(), LISTENER),
                ],
                setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGPIPE],
            )
        finally:
            os.close(written)
        self._descriptor = os.pidfd_open(self.number)

    def wait(self, timeout: float) -> bool:
        """Return whether it ended within some seconds."""
        return bool(select.select([self._descriptor], [], [], timeout)[0])

    def end(self, patience: float) -> None:
        signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
        if not self.wait(patience):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def close(self) -> int:
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])


def worker_command(site_folder: Path) -> list[str]:
    """Return the command of a site's training worker; it loads no code from where the client was started."""
    return [sys.executable, "-P", "-m", "fedcad.client.worker", str(site_folder.resolve())]


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind(listener, path)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
