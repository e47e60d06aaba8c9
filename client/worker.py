"""The resident training worker of a hospital: ``python -m fedcad.client.worker SITE_FOLDER``.

Inherits the listening socket as descriptor 3 from the client, answers one message at a time, and ends by
itself when nobody has asked for a while: a node without a study then takes no memory. Killed in the middle,
the next worker goes on from the checkpoint inside the round.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import torch

from fedcad.client.hospital import Hospital
from fedcad.client.round_checkpoint import StopRequested
from fedcad.client.withheld import withhold_reason
from fedcad.client.worker_keeper import LISTENER
from fedcad.client.worker_protocol import WorkerMessage, check_peer, receive_message, send_message
from fedcad.client.worker_studies import Interruption, Keys, Studies
from fedcad.shared.errors import FedCADError
from fedcad.shared.process_log import ProcessLog

PATIENCE_S = 60.0
"""How long the other end of a connection may be silent while it sends or takes a message."""
_LAST_STEP_S = 30.0
_PRIVATE = 0o077
_LOG = logging.getLogger("fedcad.client")


class StopSignal:
    """Whether this process was asked to stop; can be waited for beside sockets."""

    def __init__(self) -> None:
        """Not yet."""
        self.is_set = False
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable."""
        return self._awake

    def set(self, number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """Ask to stop; usable as a signal's handler."""
        self.is_set = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")


def serve(
    listener: socket.socket, studies: Studies, stop: StopSignal, *, idle_s: float, largest_bytes: int
) -> None:
    """Answer one connection after another until nobody has connected for a while, or until asked to stop.

    Args:
        listener: Listening Unix socket, shared with the client.
        studies: What answers.
        stop: Whether to stop.
        idle_s: Seconds without a connection after which this returns.
        largest_bytes: Most bytes of the arrays of one message.
    """
    while not stop.is_set:
        readable = select.select([listener.fileno(), stop.fileno()], [], [], idle_s)[0]
        if stop.is_set or not readable:
            return
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            try:
                goes_on = _answer(connection, studies, largest_bytes)
            except StopRequested:
                _LOG.info("stopped inside a round; its checkpoint is kept")
                return
        if not goes_on:
            _LOG.error("the GPU failed; the next message starts a worker anew")
            return


def _answer(connection: socket.socket, studies: Studies, largest_bytes: int) -> bool:
    """Answer one connection; whatever goes wrong is told by its kind, and does not end the worker.

    Returns:
        Whether this process can go on: after an error of a GPU, CUDA fails in it whatever is asked.
    """
    goes_on = True
    try:
        check_peer(connection)
        message = receive_message(connection, largest_bytes=largest_bytes)
        if message is None:
            return True
        answer = studies.answer(message)
        del message
    except StopRequested:
        raise
    except Exception as error:  # noqa: BLE001 - the process boundary
        answer = WorkerMessage("error", {"reason": withhold_reason(error)})
        goes_on = not isinstance(error, torch.AcceleratorError)
    try:
        _send(connection, answer)
    except OSError as error:
        _LOG.warning(
            "an answer could not be handed over (%s); it can be asked for again", type(error).__name__
        )
    return goes_on


def _send(connection: socket.socket, answer: WorkerMessage | Path) -> None:
    """Send a message, or a kept file as it is."""
    if isinstance(answer, WorkerMessage):
        send_message(connection, answer)
        return
    with answer.open("rb") as stream:
        connection.sendfile(stream)


def main(arguments: list[str]) -> int:
    """Run the worker of the site in a folder; return the exit status."""
    os.umask(_PRIVATE)
    try:
        hospital = Hospital.load(Path(arguments[0]))
    except FedCADError as error:
        sys.stderr.write(f"the training worker cannot run: {error}\n")
        return 1
    _log_to(ProcessLog(hospital.logs, "worker"))
    stop = StopSignal()
    signal.signal(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    site = hospital.site
    # One thread unless the hospital says otherwise: the same bits as in a simulation, and as after a kill.
    torch.set_num_threads(site.threads)
    try:
        with _alone(hospital.run), socket.socket(fileno=LISTENER) as listener:
            keys = Keys(hospital.signing_key(), hospital.enrolment().coordinator_key)
            interruption = Interruption(site.checkpoint_s, lambda: stop.is_set)
            studies = Studies(site, hospital.site_file.parent, keys, interruption=interruption)
            _LOG.info(
                "the training worker is ready; device: %s, threads: %d", site.device, torch.get_num_threads()
            )
            largest_bytes = site.largest_payload_mb * 10**6
            serve(listener, studies, stop, idle_s=site.worker_idle_s, largest_bytes=largest_bytes)
    except FedCADError as error:
        _LOG.error("the training worker cannot run: %s", error)
        return 1
    _LOG.info("the training worker ends: %s", "asked to stop" if stop.is_set else "nobody needed it")
    return 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other worker of this site lives: one may still write its last checkpoint."""
    descriptor = os.open(folder / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stop_with_parent(stop: StopSignal) -> None:
    """Stop when the client has gone, even by kill -9: nobody would end this process otherwise."""
    parent = os.getppid()
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() == parent:
        select.select([descriptor], [], [])
    stop.set()
    threading.Event().wait(_LAST_STEP_S)
    os._exit(1)


class _JsonLines(logging.Handler):
    """Writes log records of FedCAD to a process log."""

    def __init__(self, log: ProcessLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(record.getMessage(), record.levelname.lower())


def _log_to(log: ProcessLog) -> None:
    """Let FedCAD's own words into the log, and nothing else's.

    Why: readers of images warn with the values that they found, and these are a patient's.
    """
    warnings.simplefilter("ignore")
    logging.getLogger().handlers = [logging.NullHandler()]
    ours = logging.getLogger("fedcad")
    ours.handlers, ours.propagate = [_JsonLines(log)], False
    ours.setLevel(logging.INFO)
    sys.excepthook = _log_place


def _log_place(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:  # noqa: ARG001
    _LOG.critical("the training worker failed: %s\n%s", kind.__name__, "".join(traceback.format_tb(trace)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
