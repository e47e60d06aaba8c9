"""Keeps a few processes alive, and ends them with itself.

One thread and one ``select``: an idle supervisor costs next to nothing. A child that ends is started again,
later each time, and at once again when it had run well for a while. Children live in process groups of their
own, so that a group goes as a whole: what a killed process had started goes too.
"""

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from fedcad.shared.process_log import ProcessLog

PARENT_VARIABLE = "FEDCAD_SUPERVISOR"
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
HEALTHY_S = 60.0
STOP_S = 8.0
_PR_SET_PDEATHSIG = 1
_CHUNK_BYTES = 65536
_LONGEST_LINE_BYTES = 65536
_LONGEST_ERROR = 300
_POLL_S = 0.05


def die_with_supervisor() -> None:
    """Ask the kernel to kill this process when its supervisor dies; for the start of a supervised program.

    Linux only; elsewhere, and where no supervisor started this process, it does nothing.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the request
        os.kill(os.getpid(), signal.SIGKILL)


def restart_delay(failures: int) -> float:
    """Return the seconds before the next start after so many failures in a row (1, 2, 4 … 30)."""
    return 0.0 if failures <= 0 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 10))


@dataclass(frozen=True)
class Program:
    """A program to keep alive.

    Attributes:
        name: Short name, for the log file and the state.
        command: Program and arguments; never a secret, since everyone on the machine can list them.
        environment: Complete environment.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


class Child:
    """One program and its process, if it lives."""

    def __init__(self, program: Program, log: ProcessLog) -> None:
        """Describe it; nothing is started."""
        self.program = program
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.last_exit = ""
        self.last_error = ""
        self._failures = 0
        self._started = 0.0
        self._next_start = 0.0
        self._rest = b""

    def start(self, now: float) -> IO[bytes]:
        """Start the process; return the pipe that it prints into.

        Raises:
            OSError: It cannot be started.
        """
        environment = {**self.program.environment, PARENT_VARIABLE: str(os.getpid())}
        self._started = now
        self.process = subprocess.Popen(
            self.program.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self.log.write(f"started as process {self.process.pid}")
        if self.process.stdout is None:
            raise OSError("a pipe was asked for and not made")
        os.set_blocking(self.process.stdout.fileno(), False)
        return self.process.stdout

    def could_not_start(self, error: OSError, now: float) -> None:
        """Note that the operating system refused to start the process."""
        self.process = None
        self._failed(f"cannot be started: {error.strerror or error}", now)

    def is_due(self, now: float) -> bool:
        """Whether it is time to start the process."""
        return self.process is None and now >= self._next_start

    def seconds_to_start(self, now: float) -> float | None:
        """Return how long until the next start; None while it lives."""
        return None if self.process is not None else max(0.0, self._next_start - now)

    def read(self) -> bool:
        """Log what the process has printed; False at the end of its output."""
        if self.process is None or self.process.stdout is None:
            return False
        try:
            chunk = self.process.stdout.read(_CHUNK_BYTES)
        except OSError:
            return False
        if chunk:
            self._take(chunk)
        return chunk is None or bool(chunk)  # None: nothing to read now

    def _take(self, chunk: bytes) -> None:
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._note(line.decode("utf-8", "replace"))

    def _note(self, line: str) -> None:
        level, text = self.log.write_printed(line)
        if level in ("error", "critical") and text:
            self.last_error = text[:_LONGEST_ERROR]

    def has_ended(self) -> bool:
        """Whether the process has ended; it keeps its number until :meth:`reap`."""
        if self.process is None:
            return False
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def reap(self, now: float) -> None:
        """End what an ended process had started, and note how it ended."""
        if self.process is None:
            return
        code = self._bury()
        ran = now - self._started
        self._failures = 0 if ran >= HEALTHY_S else self._failures
        self._failed(_ending(code, ran), now)

    def _bury(self) -> int:
        """Kill the group, log its last words, and wait for the process."""
        process = self.process
        if process is None:
            return 0
        # Before the process is waited for, its number cannot belong to anybody else's group.
        _signal_group(process.pid, signal.SIGKILL)
        while process.stdout is not None and (chunk := _rest_of(process.stdout)):
            self._take(chunk)
        if self._rest:
            self._take(b"\n")
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self.process = None
        return code

    def _failed(self, ending: str, now: float) -> None:
        self._failures += 1
        self.restarts += 1
        self.last_exit = ending
        delay = restart_delay(self._failures)
        self._next_start = now + delay
        self.log.write(f"{ending}; next start in {delay:g} s", "warning")

    def terminate(self, how: signal.Signals) -> None:
        """Signal the whole group."""
        if self.process is not None:
            _signal_group(self.process.pid, how)

    def end(self) -> None:
        """Kill what is left of the group and forget the process."""
        if self.process is not None:
            self._bury()
            self.log.write("stopped")

    def state(self, now: float) -> dict[str, Any]:
        """Return plain data for ``supervisor.json``."""
        waits = self.seconds_to_start(now)
        return {
            "state": "running" if waits is None else "waiting to start",
            "pid": None if self.process is None else self.process.pid,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "last_error": self.last_error,
        }


def _ending(code: int, ran: float) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{how} after {ran:.0f} s"


def _rest_of(pipe: IO[bytes]) -> bytes | None:
    try:
        return pipe.read(_CHUNK_BYTES)
    except OSError:
        return None


def _signal_group(group: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, how)


@dataclass
class _Timer:
    every_s: float
    call: Callable[[], None]
    due: float = 0.0


class Supervisor:
    """Runs children until it is told to stop.

    Guarantees:
        Nothing that it started outlives :meth:`run`. Signals to stop are acted on within a second.
    """

    def __init__(
        self,
        children: Sequence[Child],
        changed: Callable[[dict[str, Any]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take children in the order of their start; they are stopped in the reverse order.

        Args:
            children: What to keep alive.
            changed: Called with the state of all children, by name, whenever it has changed.
            clock: Seconds that never go back.
        """
        self._children = list(children)
        self._changed = changed
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[_Timer] = []
        self._last: dict[str, Any] = {}
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()

    def watch(self, source: Any, call: Callable[[], None]) -> None:
        """Call a function whenever a socket or pipe can be read; until :meth:`unwatch`."""
        self._selector.register(source, selectors.EVENT_READ, call)

    def unwatch(self, source: Any) -> None:
        """Stop watching."""
        self._selector.unregister(source)

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function at once and then every so many seconds; it must not take long."""
        self._timers.append(_Timer(seconds, call))

    def stop(self) -> None:
        """Ask :meth:`run` to end; safe from signal handlers and other threads."""
        self._stopping = True
        with suppress(OSError):
            self._wake_writer.send(b"x")

    def run(self) -> None:
        """Keep the children alive until SIGTERM, SIGINT or :meth:`stop`; then stop them."""
        handlers = {
            kind: signal.signal(kind, lambda _kind, _frame: self.stop())
            for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(kind) is not signal.SIG_IGN  # nohup means it
        }
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain)
        # A child's death interrupts the select at once instead of being found at the next look.
        self._wake_writer.setblocking(False)
        previous_fd = signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        previous_child = signal.signal(signal.SIGCHLD, lambda _kind, _frame: None)
        try:
            while not self._stopping:
                self._step()
        finally:
            self._stop_children()
            signal.set_wakeup_fd(previous_fd)
            signal.signal(signal.SIGCHLD, previous_child)
            for kind, handler in handlers.items():
                signal.signal(kind, handler)
            self._selector.close()
            self._wake_reader.close()
            self._wake_writer.close()

    def _step(self) -> None:
        now = self._clock()
        for child in self._children:
            if child.has_ended():
                self._forget(child)
                child.reap(now)
            if child.is_due(now):
                self._start(child, now)
        for timer in self._timers:
            if now >= timer.due:
                timer.due = now + timer.every_s
                timer.call()
        self._report(now)
        for key, _ in self._selector.select(self._wait_s()):
            key.data()

    def _wait_s(self) -> float:
        now = self._clock()
        waits = [timer.due - now for timer in self._timers]
        waits += [wait for child in self._children if (wait := child.seconds_to_start(now)) is not None]
        return max(0.0, min(waits, default=60.0))

    def _start(self, child: Child, now: float) -> None:
        try:
            pipe = child.start(now)
        except OSError as error:
            child.could_not_start(error, now)
            return
        self._selector.register(pipe, selectors.EVENT_READ, lambda: self._read(child, pipe))

    def _read(self, child: Child, pipe: IO[bytes]) -> None:
        if not child.read():
            self._selector.unregister(pipe)

    def _forget(self, child: Child) -> None:
        """Watch an ended process's pipe no longer; it may have been forgotten at the end of its output."""
        if child.process is not None and child.process.stdout is not None:
            with suppress(KeyError):
                self._selector.unregister(child.process.stdout)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._wake_reader.recv(4096)

    def _report(self, now: float) -> None:
        state = {child.program.name: child.state(now) for child in self._children}
        if state != self._last:
            self._last = state
            self._changed(state)

    def _stop_children(self) -> None:
        """End children, the last started first, within a few seconds."""
        for child in reversed(self._children):
            child.terminate(signal.SIGTERM)
        deadline = self._clock() + STOP_S
        while self._clock() < deadline and any(_lives(child) for child in self._children):
            for child in self._children:
                child.read()
            time.sleep(_POLL_S)
        for child in reversed(self._children):
            self._forget(child)
            child.end()
        self._report(self._clock())


def _lives(child: Child) -> bool:
    return child.process is not None and not child.has_ended()
