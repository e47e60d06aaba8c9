"""Processes that this one started, looked at while they work: what each kind of them takes. Linux only."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

KINDS: Mapping[str, str] = {
    "flwr-serverapp": "ServerApp",
    "flwr-clientapp": "ClientApp",
    "fedcad.client.worker": "training worker",
    "fedcad.client.supernode": "SuperNode",
    "flower-supernode": "SuperNode",
    "fedcad.server.superlink": "SuperLink",
    "flower-superlink": "SuperLink",
    "fedcad.server.executor": "SuperExec",
    "flower-superexec": "SuperExec",
    "deployed_process coordinator": "coordinator's supervisor",
    "deployed_process site": "site's supervisor",
}
"""Words of a command line, and the kind of process that they tell."""
_TICKS = os.sysconf("SC_CLK_TCK")
_END_S = 20.0


class Watch:
    """High-water marks of the resident memory of descendants, by kind."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.peak_mb: dict[str, float] = {}

    def look(self) -> None:
        """Note the kernel's own high-water mark of every descendant that lives now."""
        for process in descendants(os.getpid()):
            kind = kind_of(process)
            if kind:
                self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), status_mb(process, "VmHWM"))


def kind_of(process: int) -> str:
    """Return the kind of a process, or nothing where it is none of a deployment's."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return next((kind for words, kind in KINDS.items() if words in line), "")
    return ""


def descendants(root: int) -> Iterator[int]:
    """Yield all processes below a process."""
    for path in Path(f"/proc/{root}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from descendants(child)


def status_mb(process: int, field: str) -> float:
    """Return a size from ``/proc/PID/status`` in MB, or 0 where the process has gone."""
    return _size_mb(Path(f"/proc/{process}/status"), field)


def pss_mb(process: int) -> float:
    """Return a process's proportional set size in MB, or 0 where it has gone."""
    return _size_mb(Path(f"/proc/{process}/smaps_rollup"), "Pss")


def _size_mb(path: Path, field: str) -> float:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(process: int) -> float:
    """Return the CPU seconds of a process and of those of its children that have ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def idle(root: int, seconds: float) -> dict[str, float]:
    """Look at a process and all below it for a while.

    Returns:
        ``pss_mb`` (all together, at the end), ``core_percent`` (of one core) and ``processes``.
    """
    family = [root, *descendants(root)]
    before, started = sum(map(cpu_s, family)), time.monotonic()
    time.sleep(seconds)
    used = sum(map(cpu_s, family)) - before
    percent = 100 * used / (time.monotonic() - started)
    now = [root, *descendants(root)]
    if sorted(now) != sorted(family):
        raise RuntimeError(f"the node was not idle: its processes changed from {family} to {now}")
    return {"pss_mb": sum(map(pss_mb, family)), "core_percent": percent, "processes": float(len(family))}


@contextlib.contextmanager
def running(
    commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], logs: Path
) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Run processes beside each other; they end with the block.

    Args:
        commands: Command and environment of each, by name.
        logs: Folder for what they print.
    """
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, (command, environment) in commands.items():
            with (logs / f"{name}.txt").open("ab") as log:
                started[name] = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log)
        yield started
    finally:
        for process in reversed(started.values()):
            process.terminate()
        for process in started.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def require_alive(processes: Mapping[str, "subprocess.Popen[bytes]"], logs: Path) -> None:
    """Raise RuntimeError with what a process said last, where one has ended."""
    for name, process in processes.items():
        if process.poll() is not None:
            said = (logs / f"{name}.txt").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{name} ended with {process.returncode}: {said}")
