"""One command in a process of its own: seconds, CPU seconds and peak memory of everything that it starts.

Linux only. CPU seconds: orphans (Ray's daemons, fork servers) come back to this process, which waits for
them; as some of Ray's never do, the tree is also looked at, and the larger sum counts. Memory is the sum of
proportional set sizes, sampled; sampling costs time, so it belongs in a run of its own.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_ORPHANS_S = 20.0
_LIMIT_S = 900.0


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        started: Time of the start, as of ``time.time()``.
        wall_s: Seconds until its main process ended.
        cpu_s: CPU seconds of all its processes.
        peak_pss_mb: Largest sum of proportional set sizes in MB; 0 where not asked for.
    """

    started: float
    wall_s: float
    cpu_s: float
    peak_pss_mb: float


def measure(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, memory: bool = False
) -> Cost:
    """Run a command and wait for it and everything that it left behind.

    Raises:
        RuntimeError: It failed; the message ends with what it said.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, started, clock = _reaped_cpu(), time.time(), time.monotonic()
    tree = _Tree()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=errors
        )
        while process.poll() is None:
            tree.look(memory=memory)
            time.sleep(_LOOK_EVERY_S)
            if time.monotonic() - clock > _LIMIT_S:
                process.kill()
        wall = time.monotonic() - clock
        _reap_orphans()
        if process.returncode != 0:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {text[-2000:]}")
    return Cost(started, wall, max(_reaped_cpu() - before, tree.cpu_s), tree.peak_pss_mb)


class _Tree:
    """What was seen of the descendants of this process."""

    def __init__(self) -> None:
        self.peak_pss_mb = 0.0
        self._cpu: dict[int, float] = {}

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu.values())

    def look(self, *, memory: bool) -> None:
        """Note the CPU seconds, and if wanted the memory, of every descendant that lives now."""
        children: dict[int, list[int]] = {}
        seconds: dict[int, float] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                process = int(path.parent.name)
                children.setdefault(int(fields[1]), []).append(process)
                seconds[process] = (int(fields[11]) + int(fields[12])) / _TICKS
        found = _descendants(children, os.getpid())
        self._cpu.update({process: seconds[process] for process in found})
        if memory:
            self.peak_pss_mb = max(self.peak_pss_mb, sum(map(_pss_mb, found)))


def _descendants(children: Mapping[int, Sequence[int]], root: int) -> list[int]:
    found, waiting = [], list(children.get(root, ()))
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], ())
    return found


def _pss_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _reaped_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap_orphans() -> None:
    """Wait for adopted processes, ending those that stay."""
    until = time.monotonic() + _ORPHANS_S
    with contextlib.suppress(ChildProcessError):
        while True:
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                time.sleep(0.02)
                if time.monotonic() > until:
                    _end_children()


def _end_children() -> None:
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
