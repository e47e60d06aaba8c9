"""One small study of a real consortium on loopback: its processes, its moments, what must hold at its end.

The same study is run in one process first; whatever is done to the deployed one, it must end with the same
bits, and with every site counted once in every round.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tiny_study
import yaml
from consortium_processes import Supervised, arguments_of, family_of, make_consortium

from fedcad.client.enrolment import install, request
from fedcad.client.hospital import Hospital
from fedcad.server.consortium import Consortium
from fedcad.server.enrolment import enrol
from fedcad.server.study_folder import StudyFolder
from fedcad.server.submission import Submission, submit
from fedcad.shared.config.load import load_site
from fedcad.shared.contract import Contract

SITES = ("site-1", "site-2", "site-3")
PATIENCE_S = 600.0
_POLL_S = 0.005
_WITHOUT = ("seconds", "bytes_sent", "bytes_received")
_LAST_LINES = 12


def reference(
    folder: Path, archives: Path, *, rounds: int, epochs: int = 200, **changes: Any
) -> tiny_study.Simulated:
    """Run the study in this process, undisturbed.

    Args:
        folder: Where its run goes.
        archives: Where the emulated hospitals are.
        rounds: Number of rounds.
        epochs: Local epochs: so many that a process can be killed in the middle of them.
        changes: Sections of the study to replace.
    """
    training = tiny_study.study_plain()["training"] | {
        "optimizer": {"name": "sgd", "learning_rate": 0.005, "momentum": 0.9},
        "local_epochs": epochs,
    }
    return tiny_study.simulate(
        folder,
        archives=archives,
        study=tiny_study.make_study(
            **{
                "rounds": rounds,
                "training": training,
                "participation": {"quorum": 3, "deadline_s": 600.0},
                **changes,
            }
        ),
        simulation=tiny_study.make_simulation(baselines={"alone": False, "pooled": False}),
    )


def site_files_of(run: tiny_study.Simulated, archives: Path) -> dict[str, Path]:
    """Return the site file of every emulated hospital of a run, by name."""
    folders = json.loads((run.folder / "archives.json").read_text())
    return {name: archives / folder / "site.yaml" for name, folder in folders.items()}


class DeployedStudy:
    """A consortium, its hospitals and one study, as folders and processes."""

    def __init__(
        self, root: Path, expected: tiny_study.Simulated, archives: Path, *, coordinator: Path | None = None
    ) -> None:
        """Make the folders; nothing is started.

        Args:
            root: An empty folder.
            expected: The same study's undisturbed run.
            archives: Where the emulated hospitals are.
            coordinator: Folder of the coordinator; one below the root if None.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.expected = expected
        self.consortium: Consortium = make_consortium(coordinator or root / "coordinator")
        self.coordinator = Supervised("server", self.consortium.folder)
        self.hospitals: dict[str, Hospital] = {}
        self.nodes: dict[str, Supervised] = {}
        self._site_files = site_files_of(expected, archives)
        self.contract = Contract.load(expected.folder / "contract")

    def __enter__(self) -> "DeployedStudy":
        return self

    def __exit__(self, *error: object) -> None:
        for supervised in (*self.nodes.values(), self.coordinator):
            if supervised.process is not None and supervised.process.poll() is None:
                supervised.process.terminate()
        for supervised in (*self.nodes.values(), self.coordinator):
            supervised.end()

    def make_site(self, name: str, *, now: datetime | None = None, address: str = "") -> Hospital:
        """Make the folder of an emulated hospital's node, and enrol it, at another address if given."""
        folder = self.root / "sites" / name
        folder.mkdir(parents=True, exist_ok=True)
        emulated, beside = load_site(self._site_files[name]), self._site_files[name].parent
        site = {
            "name": name,
            "archive": str((beside / emulated.archive).resolve()),
            "labels": str((beside / emulated.labels).resolve()),
            "state": "state",
        }
        (folder / "site.yaml").write_text(yaml.safe_dump(site))
        hospital = Hospital.load(folder)
        config = self.consortium.config
        reached = Consortium(
            self.consortium.folder, config.model_copy(update={"address": address or config.address})
        )
        install(hospital, enrol(reached, request(hospital, now=now), now=now))
        self.hospitals[name] = hospital
        self.nodes[name] = Supervised("client", folder)
        return hospital

    def submit(self, *, issued: datetime | None = None, days: int = 30) -> None:
        """Submit the study to the consortium."""
        submission = Submission(
            consortium=self.consortium.config.name,
            sites=tuple(self.consortium.sites()),
            key=self.consortium.signing_key(),
            issued=issued or datetime.now(UTC),
            days=days,
        )
        submit(self.consortium.studies, self.contract, submission)

    def start(self, sites: Iterable[str] = SITES) -> "DeployedStudy":
        """Make what is missing, submit, and start coordinator and nodes."""
        for name in sites:
            if name not in self.hospitals:
                self.make_site(name)
        if not self.study.path.exists():
            self.submit()
        self.coordinator.start()
        for name in sites:
            self.nodes[name].start()
        return self

    @property
    def study(self) -> StudyFolder:
        """The study's folder at the coordinator."""
        return StudyFolder(self.consortium.studies / self.contract.study.name / "v0001")

    @property
    def rounds(self) -> int:
        """Rounds of the study."""
        return self.contract.study.rounds

    def closed(self) -> int:
        """Return the last closed round."""
        facts = self.study.checkpoint()
        return 0 if facts is None else facts.round

    def outbox(self, site: str) -> Path:
        """Return a site's outbox of the study."""
        return self.hospitals[site].state / "outbox" / self.contract.study_hash[:32]

    def _in_round(self, site: str, number: int, kind: str) -> bool:
        return any(self.outbox(site).glob(f"round-{number:010d}-attempt-*/*.{kind}"))

    def has_plan(self, site: str, number: int) -> bool:
        """Whether a site has admitted the plan of a round that is not closed."""
        return self._in_round(site, number, "plan") and self.closed() < number

    def trains(self, site: str, number: int) -> bool:
        """Whether a site has admitted the plan of a round and not yet its answer."""
        return self._in_round(site, number, "plan") and not self._in_round(site, number, "answer")

    def has_answered(self, site: str, number: int) -> bool:
        """Whether a site has kept its answer and the coordinator has not closed the round."""
        return self._in_round(site, number, "answer") and self.closed() < number

    def is_validating(self, site: str) -> bool:
        """Whether a site's process of a message lives after the last round, before the study is finished."""
        facts = self.study.checkpoint()
        is_last = facts is not None and facts.round == self.rounds and not facts.is_finished
        return is_last and self.pid_of("clientapp", site) is not None

    def wait(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait for a moment of the study; fail with the study's own words where it does not come."""
        until = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < until, f"{what} did not come within {patience_s:g} s; {self.words()}"
            time.sleep(_POLL_S)

    def until_closed(self, number: int) -> None:
        """Wait until a round is closed."""
        self.wait(lambda: self.closed() >= number, f"the end of round {number}")

    def pid_of(self, kind: str, site: str = "site-1") -> int | None:
        """Return the living process of a kind, or None."""
        if kind in ("superlink", "superexec"):
            return self.coordinator.pid_of(kind)
        if kind == "serverapp":
            holder = self.study.holder()
            return None if holder is None else holder.pid
        if kind in ("coordinator", "node"):
            supervised = self.coordinator if kind == "coordinator" else self.nodes[site]
            return None if supervised.process is None else supervised.process.pid
        node = self.nodes[site]
        if kind == "supernode":
            return node.pid_of("supernode")
        if node.process is None:
            return None
        marks = {"worker": "fedcad.client.worker", "clientapp": "flwr-clientapp"}
        family = [pid for pid in family_of(node.process.pid) if marks[kind] in _arguments(pid)]
        return family[-1] if family else None

    def kill(self, kind: str, site: str = "site-1") -> int:
        """Kill a process of a kind with kill -9; a supervisor is started again, as the system would."""
        self.wait(lambda: self.pid_of(kind, site), f"a process {kind}", 60.0)
        pid = self.pid_of(kind, site)
        assert pid is not None
        if kind in ("coordinator", "node"):
            supervised = self.coordinator if kind == "coordinator" else self.nodes[site]
            supervised.kill_supervisor()
            supervised.start()
        else:
            os.kill(pid, signal.SIGKILL)
        return pid

    def until_ended(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until the study is complete and its process has gone."""
        self.wait(
            lambda: self.study.outcome() is not None and not self.study.is_running(),
            "the end of the study",
            patience_s,
        )

    def require_undisturbed(self) -> str:
        """Fail unless the study ended as if nothing had happened; return its model's hash, shortened."""
        outcome = self.study.outcome()
        assert outcome is not None
        assert outcome.status == "completed", outcome.reason
        assert self.log() == [_plain(event) for event in self.expected.events]
        assert outcome.model_sha256 == self.expected.results["model_sha256"]
        self.require_nothing_left()
        return outcome.model_sha256[:16]

    def require_nothing_left(self) -> None:
        """Fail unless every site knows that its rounds are closed and has the model's own test counted."""
        test = json.loads((self.study.path / "test.json").read_text())
        assert sorted(test["sites"]) == sorted(self.hospitals), test["without"]
        for name in self.hospitals:
            assert not list(self.outbox(name).glob("round-*")), f"{name} keeps answers of closed rounds"

    def log(self) -> list[dict[str, Any]]:
        """Return the study's log without times and sizes."""
        return [_plain(event) for event in self.study.events()]

    def participation(self, number: int) -> dict[str, tuple[str, str]]:
        """Return status and reason of every site in a closed round."""
        (event,) = [
            each for each in self.study.events() if each["event"] == "round" and each["round"] == number
        ]
        return {part["site"]: (part["status"], part["reason"]) for part in event["participation"]}

    def live(self) -> dict[str, Any]:
        """Return what the study says about itself."""
        try:
            plain: dict[str, Any] = json.loads((self.study.path / "live.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return plain

    def words(self) -> str:
        """Return the last lines of the logs, for a failure's message."""
        logs = [self.consortium.folder / "logs", *(each.logs for each in self.hospitals.values())]
        lines = [
            f"{entry['time'][11:19]} {log.parent.name}/{entry['process']}: {entry['text'][:160]}"
            for log in logs
            for path in log.glob("*.jsonl")
            for entry in map(json.loads, path.read_text().splitlines()[-_LAST_LINES:])
        ]
        live = {key: value for key, value in self.live().items() if key != "sites"}
        return "\n".join([f"live: {live}", *sorted(lines)[-60:]])


def _arguments(pid: int) -> str:
    try:
        return arguments_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in event.items() if key not in _WITHOUT}
    if "participation" in kept:
        kept["participation"] = [part | {"delay_s": None} for part in kept["participation"]]
    return kept
