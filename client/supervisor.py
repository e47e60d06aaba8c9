"""The hospital's one process that a person starts: it keeps node and training worker alive.

It imports neither torch nor flwr: a node without an active study must cost a hospital next to nothing.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcad.client.hospital import Hospital
from fedcad.client.worker_keeper import WorkerKeeper, worker_command
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.flower_environment import flower_environment
from fedcad.shared.instance_lock import InstanceLock
from fedcad.shared.process_log import ProcessLog
from fedcad.shared.supervision import Child, Program, Supervisor
from fedcad.shared.version import __version__

STATE_FILE = "supervisor.json"
LOCK_FILE = "supervisor.lock"
NODE = "supernode"
_PRIVATE = 0o700
_KEEPER_WAIT_S = 1.0
Say = Callable[[str], None]


def program(hospital: Hospital, folder: Path) -> Program:
    """Return the node as a program."""
    environment = flower_environment(hospital.flower_home, os.environ, proxy=hospital.site.proxy)
    command = (sys.executable, "-P", "-m", "fedcad.client.supernode", str(folder.resolve()))
    return Program(NODE, command, environment)


class Node:
    """A hospital's processes."""

    def __init__(self, folder: Path, say: Say) -> None:
        """Look at a site's folder; nothing is started.

        Args:
            folder: The site.
            say: Told in a line what happens, for a terminal.

        Raises:
            FedCADError: The folder is no site that has joined a consortium.
        """
        self._folder = folder
        self._hospital = Hospital.load(folder)
        self._coordinator = self._hospital.enrolment().address
        for made in (self._hospital.run, self._hospital.logs, self._hospital.flower_home):
            made.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            made.chmod(_PRIVATE)
        self._log = ProcessLog(self._hospital.logs, "supervisor")
        self._terminal = say
        self._child = Child(program(self._hospital, folder), ProcessLog(self._hospital.logs, NODE))
        self._processes: dict[str, Any] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._ends = threading.Event()

    def run(self) -> None:
        """Be the node until SIGTERM or SIGINT.

        Raises:
            UnsupportedError: Another process is it already.
        """
        with (
            InstanceLock(self._hospital.run / LOCK_FILE, f"the node of {self._hospital.site.name}"),
            WorkerKeeper(
                self._hospital.socket,
                command=worker_command(self._folder),
                log=self._hospital.logs / "worker.log",
                environment=self._child.program.environment,
            ) as keeper,
        ):
            self._say(f"FedCAD {__version__}: node of {self._hospital.site.name} starts")
            self._say(f"coordinator: {self._coordinator}")
            minder = threading.Thread(target=self._mind, args=(keeper,), name="worker-keeper")
            minder.start()
            try:
                Supervisor([self._child], self._changed).run()
            finally:
                self._ends.set()
                minder.join()
            self._say("stopped")

    def _mind(self, keeper: WorkerKeeper) -> None:
        while not self._ends.is_set():
            try:
                keeper.poll(_KEEPER_WAIT_S)
            except OSError as error:  # no memory, no process number, a full disk: later there may be
                self._log.write(f"the training worker cannot be started: {error}", "error")
                self._ends.wait(_KEEPER_WAIT_S)

    def _changed(self, processes: dict[str, Any]) -> None:
        state = processes[NODE]
        if state["state"] != self._processes.get(NODE, {}).get("state"):
            ending = f" ({state['last_exit']})" if state["last_exit"] else ""
            self._say(f"{NODE}: {state['state']}{ending}")
        self._processes = processes
        plain = {
            "pid": os.getpid(),
            "started": self._started,
            "version": __version__,
            "coordinator": self._coordinator,
            "problem": self._log.problem,
            "processes": processes,
        }
        try:
            write_bytes(self._hospital.run / STATE_FILE, json.dumps(plain, indent=1).encode())
        except OSError as error:
            self._log.write(f"{STATE_FILE}: {error.strerror or error}", "error")

    def _say(self, text: str) -> None:
        self._log.write(text)
        self._terminal(text)
