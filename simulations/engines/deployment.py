"""A simulation as a real consortium: coordinator and nodes as processes of their own, over TLS on loopback.

The same commands' code as at hospitals: keys, enrolment, signed contract, SuperLink, SuperNodes, workers.
"""

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fedcad.client.enrolment import join, request
from fedcad.client.hospital import SITE_FILE, Hospital
from fedcad.server.consortium import CONFIG, Consortium, config_text, make_config
from fedcad.server.enrolment import enrol
from fedcad.server.event_log import Observer
from fedcad.server.outcome import MODEL
from fedcad.server.study_folder import StudyFolder, Wanted
from fedcad.server.submission import Submission, submit
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.load import load_site
from fedcad.shared.contract import Contract
from fedcad.shared.enrolment import file_text
from fedcad.shared.errors import FedCADError, QuorumError, UnsupportedError
from fedcad.shared.process_log import ProcessLog
from fedcad.shared.supervision import Child, Program, Supervisor

LOOK_EVERY_S = 0.5
MOST_RESTARTS = 5
_DAYS = 30
_MODULE = "fedcad.simulations.engines.deployed_process"
_RESULTS = (MODEL, "outcome.json", "rounds.jsonl")


class Deployment:
    """A consortium below a folder, made once and found again by a resumed simulation."""

    def __init__(self, folder: Path, contract: Contract, site_files: Mapping[str, Path]) -> None:
        """Describe it; nothing is made yet.

        Args:
            folder: Where consortium and sites go.
            contract: The study.
            site_files: Site file of each emulated hospital, by name.
        """
        self._folder = folder
        self._contract = contract
        self._site_files = site_files

    @property
    def study(self) -> StudyFolder:
        """The study's folder at the coordinator."""
        return StudyFolder(self._folder / "coordinator" / "studies" / self._contract.study.name / "v0001")

    def make(self) -> None:
        """Make the consortium, enrol every site and submit the study, unless that was done.

        Raises:
            FedCADError: Something cannot be made.
        """
        if self.study.path.exists() and self.study.contract().study_hash == self._contract.study_hash:
            self.study.want(Wanted.RUNNING)
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        consortium = self._consortium()
        for name, site_file in self._site_files.items():
            self._enrol(consortium, name, site_file)
        submission = Submission(
            consortium=consortium.config.name,
            sites=tuple(self._site_files),
            key=consortium.signing_key(),
            issued=datetime.now(UTC),
            days=_DAYS,
        )
        submit(consortium.studies, self._contract, submission)

    def run(self, observe: Observer | None) -> None:
        """Start all processes, show the study's events as they come, and stop the processes when it ends.

        Raises:
            KeyboardInterrupt: Ctrl-C; everything goes on with the next run.
            QuorumError: The study stopped below its quorum.
            UnsupportedError: A process ends again and again.
        """
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        folders = {"coordinator": self._folder / "coordinator"}
        folders |= {name: self._site_folder(name) for name in self._site_files}
        children = [
            Child(
                _program(name, "coordinator" if name == "coordinator" else "site", folder),
                ProcessLog(logs, name),
            )
            for name, folder in folders.items()
        ]
        watch = _Watch(self.study, observe, children)
        supervisor = Supervisor(children, watch.changed)
        supervisor.every(LOOK_EVERY_S, lambda: supervisor.stop() if watch.has_ended() else None)
        supervisor.run()
        watch.raise_problem()

    def collect(self, folder: Path) -> None:
        """Copy the study's results into a run folder."""
        for name in _RESULTS:
            write_bytes(folder / name, (self.study.path / name).read_bytes())

    def _consortium(self) -> Consortium:
        folder = self._folder / "coordinator"
        public, control, metrics = _free_ports(3)
        config = make_config("simulation", f"127.0.0.1:{public}")
        ports = {"listen": f"127.0.0.1:{public}", "control_port": control, "metrics_port": metrics}
        made = Consortium.create(folder, config.model_copy(update=ports))
        write_bytes(folder / CONFIG, config_text(made.config).encode())
        return made

    def _site_folder(self, name: str) -> Path:
        return self._folder / "sites" / name

    def _enrol(self, consortium: Consortium, name: str, site_file: Path) -> None:
        """Do at both ends what people do: keys and request, enrolment, joining."""
        emulated, folder = load_site(site_file), self._site_folder(name)
        folder.mkdir(parents=True)
        site = {
            "name": name,
            "archive": str((site_file.parent / emulated.archive).resolve()),
            "labels": str((site_file.parent / emulated.labels).resolve()),
            "state": "state",
        }
        write_bytes(folder / SITE_FILE, yaml.safe_dump(site, sort_keys=False).encode())
        hospital = Hospital.load(folder)
        enrolment = folder / "from-coordinator.json"
        write_bytes(enrolment, file_text(enrol(consortium, request(hospital))))
        join(hospital, enrolment, consortium.fingerprint)


class _Watch:
    """Shows a study's events, and knows when it has ended and why."""

    def __init__(self, study: StudyFolder, observe: Observer | None, children: Sequence[Child]) -> None:
        self._study = study
        self._observe = observe
        self._children = children
        self._shown = 0
        self._problem: FedCADError | None = None

    def changed(self, processes: Mapping[str, Any]) -> None:
        """Take the state of the processes."""
        for name, state in processes.items():
            if state["restarts"] >= MOST_RESTARTS:
                self._problem = UnsupportedError(
                    f"the process of {name} ends again and again: {state['last_exit']} "
                    f"({state['last_error']})"
                )

    def has_ended(self) -> bool:
        """Show new events; whether the study has ended, or cannot go on."""
        for event in self._new_events():
            if self._observe is not None:
                self._observe(event)
        outcome = self._study.outcome()
        return self._problem is not None or (outcome is not None and not self._study.is_running())

    def raise_problem(self) -> None:
        """Raise why the study did not complete, if it did not."""
        if self._problem is not None:
            raise self._problem
        outcome = self._study.outcome()
        if outcome is None:
            raise KeyboardInterrupt
        if outcome.status != "completed":
            raise QuorumError(outcome.reason)

    def _new_events(self) -> Iterator[Mapping[str, Any]]:
        events = self._study.events()
        yield from events[self._shown :]
        self._shown = max(self._shown, len(events))


def _program(name: str, kind: str, folder: Path) -> Program:
    return Program(name, (sys.executable, "-m", _MODULE, kind, str(folder.resolve())), dict(os.environ))


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def run_deployed(
    contract: Contract, site_files: Mapping[str, Path], folder: Path, observe: Observer | None = None
) -> None:
    """Run a study, or go on with it, as a deployment, and leave its results in a run folder.

    Args:
        contract: The study.
        site_files: Site file of each emulated hospital, by name.
        folder: Run folder.
        observe: Told of every event.

    Raises:
        FedCADError: As :meth:`Deployment.make` and :meth:`Deployment.run`.
    """
    deployment = Deployment(folder / "deployment", contract, site_files)
    deployment.make()
    deployment.run(observe)
    deployment.collect(folder)
