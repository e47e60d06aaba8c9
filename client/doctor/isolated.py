"""Work that may hang or end its process (a decoder on a damaged file, a step that needs too much memory).

It runs in a process of its own, so that the doctor lives to say so, and so that its memory is that work's
alone. What was found until then is kept.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from fedcad.client.doctor.check import Tell
from fedcad.shared.errors import FedCADError

_ENDED_BY_US = -signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    """What such a process found and how it ended.

    Attributes:
        found: What it reported, by name.
        refused: The text of the FedCADError that stopped it; empty: none did.
        death: How it ended otherwise than by returning, in words; empty: it returned.
    """

    found: Mapping[str, Any]
    refused: str = ""
    death: str = ""


class Reporter:
    """The way from the work to the doctor: one JSON object a line."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to a stream."""
        self._stream = stream

    def tell(self, text: str) -> None:
        """Say how far the work is."""
        self._send({"tell": text})

    def report(self, name: str, value: Any) -> None:
        """Report something found; it counts even if the process ends in the next moment."""
        self._send({"name": name, "value": value})

    def refuse(self, reason: str) -> None:
        """Say why the work cannot go on."""
        self._send({"refused": reason})

    def _send(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()


def serve(work: Callable[[dict[str, Any], Reporter], None]) -> None:
    """Do the work in this process: the request comes on standard input, reports go to standard output.

    Whatever a library prints itself is dropped: it may quote a file's content.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream, open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        reporter = Reporter(stream)
        try:
            work(json.load(sys.stdin), reporter)
        except FedCADError as error:
            reporter.refuse(str(error))


def run(module: str, request: Mapping[str, Any], *, tell: Tell, limit_s: float) -> Outcome:
    """Run ``python -m module`` on a request until it ends or its time is over.

    Args:
        module: A module that calls :func:`serve`.
        request: Plain data for it.
        tell: Told how far it is.
        limit_s: Seconds after which it is ended.

    Guarantees:
        No such process is left when this returns or raises.
    """
    command = [sys.executable, "-P", "-m", module]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        try:
            return _follow(process, request, tell, is_late=lambda: not timer.is_alive(), limit_s=limit_s)
        finally:
            timer.cancel()
            process.kill()


def _follow(
    process: "subprocess.Popen[str]",
    request: Mapping[str, Any],
    tell: Tell,
    *,
    is_late: Callable[[], bool],
    limit_s: float,
) -> Outcome:
    """Hand over the request and collect what comes back."""
    found: dict[str, Any] = {}
    refused = ""
    if process.stdin is None or process.stdout is None:
        return Outcome({}, death="could not be started")
    with contextlib.suppress(BrokenPipeError):
        json.dump(request, process.stdin)
        process.stdin.close()
    for line in process.stdout:
        record = json.loads(line)
        if "tell" in record:
            tell(record["tell"])
        elif "refused" in record:
            refused = record["refused"]
        else:
            found[record["name"]] = record["value"]
    code = process.wait()
    late = code == _ENDED_BY_US and is_late()
    return Outcome(found, refused, f"did not end within {limit_s:.0f} s" if late else _death(code))


def _death(code: int) -> str:
    """Say how a process ended, from its return code."""
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "was killed by the system, most often because memory ran out"
    if code < 0:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return "ended with an error of FedCAD or of a library"
