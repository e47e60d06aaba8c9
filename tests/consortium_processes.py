"""A consortium of real processes on loopback: folders, starts, waits and kills."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedcad.client.enrolment import install, request
from fedcad.client.hospital import Hospital
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.enrolment import enrol

PATIENCE_S = 60.0
_START = {
    "server": "from fedcad.server.supervisor import Coordinator as Process",
    "client": "from fedcad.client.supervisor import Node as Process",
}


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_consortium(folder: Path, host: str = "localhost") -> Consortium:
    """Make a coordinator's folder that listens on loopback only."""
    port = free_port()
    changes = {"listen": f"127.0.0.1:{port}", "control_port": free_port(), "metrics_port": free_port()}
    return Consortium.create(folder, make_config("demo", f"{host}:{port}").model_copy(update=changes))


def make_site(folder: Path, consortium: Consortium, name: str = "north", more: str = "") -> Hospital:
    """Make a hospital's folder and enrol it."""
    folder.mkdir()
    lines = f"name: {name}\narchive: archive\nlabels: labels.csv\nstate: state\n{more}"
    (folder / "site.yaml").write_text(lines)
    hospital = Hospital.load(folder)
    install(hospital, enrol(consortium, request(hospital)))
    return hospital


def wait_for(condition: Callable[[], object], what: str = "it", patience_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail where it does not in time."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {patience_s:g} s"
        time.sleep(0.05)


class Supervised:
    """A supervisor as a process of its own."""

    def __init__(self, side: str, folder: Path) -> None:
        self._command = [
            sys.executable,
            "-c",
            f"import sys; from pathlib import Path\n{_START[side]}\n"
            "Process(Path(sys.argv[1]), lambda text: print(text, flush=True)).run()",
            str(folder),
        ]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Supervised":
        """Start it."""
        with (self.folder / "terminal.txt").open("ab") as terminal:
            self.process = subprocess.Popen(self._command, stdout=terminal, stderr=terminal)
        return self

    def state(self) -> dict:
        """Return its supervisor.json."""
        try:
            return json.loads((self.folder / "run" / "supervisor.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}

    def pid_of(self, name: str) -> int | None:
        """Return the process number of a child."""
        return self.state().get("processes", {}).get(name, {}).get("pid")

    def kill(self, name: str) -> int:
        """Kill a child with kill -9; return its number."""
        pid = self.pid_of(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_supervisor(self) -> None:
        """Kill the supervisor itself with kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop it, if it lives, as a person would."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def is_alive(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def arguments_of(pid: int) -> str:
    """Return what everyone on the machine can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def listens(pid: int) -> set[tuple[str, int]]:
    """Return the hosts (in hexadecimal, as the kernel writes them) and ports at which a process listens."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add((host, int(port, 16)))
    return found


def family_of(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(number) for path in children for number in path.read_text().split()]
    return [pid, *(number for child in direct for number in family_of(child))]


def memory_bytes(pid: int) -> int:
    """Return a process's proportional share of memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def core_seconds(pid: int) -> float:
    """Return the time of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Proxy:
    """A web proxy as hospitals have them: it knows CONNECT only. Every name leads to loopback."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (piece := client.recv(4096)):
            head += piece
        target = head.split()[1].decode()
        self.targets.append(target)
        server = socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        _pump(server, client)

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
