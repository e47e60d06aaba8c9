"""The coordinator's one process that a person starts: it keeps all others alive and ends them with itself."""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcad.server.consortium import Consortium
from fedcad.server.metrics import serve_metrics
from fedcad.server.stall import StallAlert
from fedcad.server.study_runs import StudyRuns
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import FedCADError, ProtocolError
from fedcad.shared.flower_environment import flower_environment
from fedcad.shared.instance_lock import InstanceLock
from fedcad.shared.process_log import ProcessLog
from fedcad.shared.supervision import Child, Program, Supervisor
from fedcad.shared.version import __version__

if TYPE_CHECKING:
    from fedcad.server.flower_control import FlowerControl

STATE_FILE = "supervisor.json"
LOCK_FILE = "supervisor.lock"
LOOK_EVERY_S = 1.0
ALERT_EVERY_S = 60.0
_SITES_EVERY_S = 30.0
_POLL_TASKS_S = "0.5"
_PRIVATE = 0o700
Say = Callable[[str], None]


def programs(consortium: Consortium, folder: Path) -> list[Program]:
    """Return what a coordinator consists of, in the order of its start."""
    environment = flower_environment(consortium.flower_home, os.environ)
    environment["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = _POLL_TASKS_S
    modules = {"superlink": "fedcad.server.superlink", "superexec": "fedcad.server.executor"}
    return [
        Program(name, (sys.executable, "-P", "-m", module, str(folder.resolve())), environment)
        for name, module in modules.items()
    ]


class Coordinator:
    """A consortium's processes, sites and runs, kept as they should be."""

    def __init__(self, folder: Path, say: Say) -> None:
        """Look at a consortium's folder; nothing is started.

        Args:
            folder: The consortium.
            say: Told in a line what happens, for a terminal.

        Raises:
            FedCADError: The folder is no usable consortium.
        """
        self._consortium = Consortium.load(folder)
        for made in (self._consortium.run, self._consortium.logs, self._consortium.database.parent):
            made.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        self._log = ProcessLog(self._consortium.logs, "supervisor")
        self._terminal = say
        self._children = [
            Child(program, ProcessLog(self._consortium.logs, program.name))
            for program in programs(self._consortium, folder)
        ]
        self._runs = StudyRuns(self._consortium.studies, self._say)
        self._stalls = StallAlert(
            self._consortium.studies,
            self._consortium.config.stall_alert_s,
            ProcessLog(self._consortium.logs, "alerts"),
            time.time(),
        )
        self._control: FlowerControl | None = None
        self._sites: object = None
        self._sites_checked = 0.0
        self._problem = ""
        self._processes: dict[str, Any] = {}
        self._written: dict[str, Any] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self) -> None:
        """Be the coordinator until SIGTERM or SIGINT.

        Raises:
            UnsupportedError: Another process is it already.
        """
        # The own client of the Control API must not go through a proxy of the machine.
        os.environ["NO_PROXY"] = self._children[0].program.environment["NO_PROXY"]
        lock = self._consortium.run / LOCK_FILE
        with InstanceLock(lock, f"the coordinator of {self._consortium.config.name}"):
            self._say(f"FedCAD {__version__}: coordinator of {self._consortium.config.name} starts")
            supervisor = Supervisor(self._children, self._changed)
            supervisor.every(LOOK_EVERY_S, self._look)
            supervisor.every(ALERT_EVERY_S, self._alert)
            with serve_metrics(self._consortium.folder, self._consortium.config.metrics_port):
                supervisor.run()
            self._say("stopped")

    def _alert(self) -> None:
        """Say once that a study stalls, and once that it goes on."""
        for line in self._stalls.check(time.time()):
            self._terminal(line)

    def _look(self) -> None:
        """Make keys and runs what they should be; what fails is tried again at the next look."""
        try:
            if self._control is None:
                from fedcad.server.flower_control import FlowerControl

                address = f"127.0.0.1:{self._consortium.config.control_port}"
                self._control = FlowerControl(
                    address, self._consortium.ca_certificate, self._consortium.executor_secret
                )
            self._look_at_sites(self._control)
            self._runs.step(self._control)
        except ProtocolError as error:
            self._problem = str(error)
        except FedCADError as error:
            self._note_problem(str(error))
        except OSError as error:
            self._note_problem(f"{error.filename or 'a file'}: {error.strerror or error}")
        else:
            self._problem = ""
        self._write_state()

    def _note_problem(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._say(problem)

    def _look_at_sites(self, control: "FlowerControl") -> None:
        now = time.monotonic()
        signature = _signature(self._consortium.sites_folder)
        if signature == self._sites and now - self._sites_checked < _SITES_EVERY_S:
            return
        enrolled = {
            name: site.node_key_openssh
            for name, site in self._consortium.sites().items()
            if site.status == "enrolled"
        }
        for change in control.register_sites(enrolled):
            self._say(change)
        self._sites, self._sites_checked = signature, now

    def _changed(self, processes: dict[str, Any]) -> None:
        for name, state in processes.items():
            before = self._processes.get(name, {})
            if state["state"] != before.get("state"):
                ending = f" ({state['last_exit']})" if state["last_exit"] else ""
                self._say(f"{name}: {state['state']}{ending}")
        self._processes = processes
        self._write_state()

    def _say(self, text: str) -> None:
        self._log.write(text)
        self._terminal(text)

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "started": self._started,
            "version": __version__,
            "problem": self._problem or self._log.problem,
            "processes": self._processes,
            "runs": self._runs.state(),
        }
        if state == self._written:
            return
        try:
            write_bytes(self._consortium.run / STATE_FILE, json.dumps(state, indent=1).encode())
        except OSError as error:
            self._problem = f"{error.filename or STATE_FILE}: {error.strerror}"
        else:
            self._written = state


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file of a folder does."""
    found = ((path.name, path.stat()) for path in sorted(folder.glob("*.json")))
    return tuple((name, facts.st_mtime_ns, facts.st_size) for name, facts in found)
