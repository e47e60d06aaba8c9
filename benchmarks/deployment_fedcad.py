"""A study of FedCAD's own deployment on loopback, with as little training as there can be.

The study is made in a process of its own: ``python -m benchmarks.deployment_fedcad FOLDER WORK``. So the
parameters are never in the memory of the process that measures.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deployment_watch import Watch, descendants, idle, kind_of, require_alive, running
from fedcad.client.supernode import read_contact
from fedcad.server.study_folder import StudyFolder

_POLL_S = 0.1
_PATIENCE_S = 360.0
_CONNECT_S = 60.0
_IMAGES = 4
_SIZE = 32
_STUDY = "benchmark"
_WORKED = re.compile(r"round (\d+): [a-z, ]+ in ([\d.]+) s")


@dataclass(frozen=True)
class Work:
    """A deployment's work.

    Attributes:
        sites: Number of sites.
        values: Parameters, about.
        rounds: Number of rounds.
        precision: ``float32`` or ``float16``, in which they travel.
        worker_idle_s: After which the sites' training workers unload.
    """

    sites: int
    values: int
    rounds: int
    precision: str = "float32"
    worker_idle_s: float = 600.0


def prepare(folder: Path, work: Work) -> None:
    """Make consortium, sites and study below a folder; write ``values.json``: the parameters."""
    from fedcad.shared.config.study import StudyConfig
    from fedcad.simulations import studies
    from fedcad.simulations.archive_writer import write_archives
    from fedcad.simulations.engines.deployment import Deployment
    from fedcad.simulations.partition import Partition

    width = round(math.sqrt(work.values))
    study = StudyConfig.model_validate(
        {
            "name": _STUDY,
            "task": {"kind": "classification", "classes": ["dark", "bright"]},
            "data": {"split": {"train": 1.0, "validation": 0.0, "test": 0.0}},
            "preprocessing": {"size": _SIZE},
            "model": {"name": "cnn", "convolutions": [{"features": 4}], "fully_connected": [width, width]},
            "training": {
                "optimizer": {"name": "sgd", "learning_rate": 0.01},
                "batch_size": _IMAGES,
                "local_steps": 1,
            },
            "algorithm": {"name": "fedavg"},
            "rounds": work.rounds,
            "participation": {"quorum": work.sites},
            "exchange": {"precision": work.precision},
            "evaluation": {"selection": "last_round", "bootstrap_replicates": 0},
        }
    )
    sites = {f"site{number}": _records(number) for number in range(work.sites)}
    archives = write_archives(Partition(sites=sites), root=folder / "hospitals")
    contract = studies.federated(study, seed=1)
    site_files = {name: archive.site_file for name, archive in archives.items()}
    Deployment(folder / "deployment", contract, site_files).make()
    for name in sites:
        with (folder / "deployment" / "sites" / name / "site.yaml").open("a") as stream:
            stream.write(f"worker_idle_s: {work.worker_idle_s}\n")
    (folder / "values.json").write_text(json.dumps(contract.layout.size))


def _records(site: int) -> tuple[Any, ...]:
    from fedcad.simulations.datasets.interface import Record

    generator, records = np.random.default_rng([1, site]), []
    for number in range(_IMAGES):
        pixels = generator.integers(0, 200, (_SIZE, _SIZE)).astype(np.uint8) + np.uint8(40 * (number % 2))
        name = f"{site}-{number}"
        records.append(
            Record(
                record_id=name,
                content_id=hashlib.sha256(pixels.tobytes()).hexdigest(),
                patient_id=name,
                label=("dark", "bright")[number % 2],
                folder="benchmark",
                read_pixels=partial(np.copy, pixels),
            )
        )
    return tuple(records)


@dataclass(frozen=True)
class Deployed:
    """A prepared deployment whose processes run."""

    folder: Path
    sites: tuple[str, ...]
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    watch: Watch

    @property
    def study(self) -> StudyFolder:
        """The study at the coordinator."""
        return StudyFolder(self.folder / "deployment" / "coordinator" / "studies" / _STUDY / "v0001")

    def until(self, condition: Callable[[], object], what: str, patience_s: float = _PATIENCE_S) -> None:
        """Wait, and look at the processes meanwhile."""
        until = time.monotonic() + patience_s
        while not condition():
            self.watch.look()
            require_alive(self.processes, self.folder)
            if time.monotonic() > until:
                raise RuntimeError(f"{what} did not come within {patience_s:g} s: {self.study.live()}")
            time.sleep(_POLL_S)


@contextmanager
def deployed(folder: Path, work: Work) -> Iterator[Deployed]:
    """Prepare a deployment and start its processes; they end with the block."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = [sys.executable, "-m", "benchmarks.deployment_fedcad", str(folder), json.dumps(asdict(work))]
    subprocess.run(made, check=True, env=environment)
    names = tuple(f"site{number}" for number in range(work.sites))
    places = {"coordinator": folder / "deployment" / "coordinator"}
    places |= {name: folder / "deployment" / "sites" / name for name in names}
    command = [sys.executable, "-m", "fedcad.simulations.engines.deployed_process"]
    commands = {
        name: ([*command, "coordinator" if name == "coordinator" else "site", str(place)], environment)
        for name, place in places.items()
    }
    with running(commands, folder) as processes:
        yield Deployed(folder, names, processes, Watch())


def run(folder: Path, work: Work, idle_s: float = 0.0) -> dict[str, Any]:
    """Run a study to its end.

    Args:
        folder: An empty folder.
        work: What is done.
        idle_s: Where above 0, look so long at the first site's node once the study is over and its worker
            has unloaded.

    Returns:
        ``values`` (parameters), ``phases`` (seconds from the checkpoint of one round to that of the next),
        ``first`` (seconds of round 1), ``answered`` (seconds until the last site's answer, of each round),
        ``closing`` (seconds from there to the checkpoint, from round 2 on), ``training`` (longest seconds in
        a worker, of each round), ``delivery`` (seconds from the last checkpoint to the outcome), ``peak_mb``
        (by kind of process) and, if wanted, ``idle``.
    """
    with deployed(folder, work) as running_study:
        study, closed = running_study.study, dict[int, float]()

        def has_ended() -> bool:
            closed.update(_closed(study.path))
            return (study.path / "outcome.json").exists() and not study.is_running()

        running_study.until(has_ended, "the end of the study")
        found = _figures(running_study, closed, work)
        if idle_s:
            found["idle"] = _idle(running_study, idle_s)
    return found


def _closed(study: Path) -> dict[int, float]:
    """Return when each round whose checkpoint is there was saved."""
    found = {}
    for path in (study / "checkpoints").glob("round-*.json"):
        if path.stem.count("-") == 1:
            try:
                found[int(path.stem.split("-")[1])] = path.stat().st_mtime
            except FileNotFoundError:
                continue
    return found


def _figures(running_study: Deployed, closed: Mapping[int, float], work: Work) -> dict[str, Any]:
    study = running_study.study
    outcome = study.outcome()
    events = [event for event in study.events() if event["event"] == "round"]
    counted = [sum(part["status"] == "counted" for part in event["participation"]) for event in events]
    if outcome is None or outcome.status != "completed" or counted != [work.sites] * work.rounds:
        raise RuntimeError(f"the study did not do its work: {outcome}, {counted}")
    numbers = range(1, work.rounds + 1)
    phases = [closed[number] - closed[number - 1] for number in numbers[1:]]
    answered = [max(part["delay_s"] for part in event["participation"]) for event in events]
    return {
        "values": json.loads((running_study.folder / "values.json").read_text()),
        "first": events[0]["seconds"],
        "phases": phases,
        "answered": answered,
        "closing": [whole - part for whole, part in zip(phases, answered[1:], strict=True)],
        "training": _training(running_study),
        "delivery": (study.path / "outcome.json").stat().st_mtime - closed[work.rounds],
        "peak_mb": running_study.watch.peak_mb,
    }


def _training(running_study: Deployed) -> list[float]:
    """Return the longest seconds of a worker in each round, as the sites' logs say."""
    longest: dict[int, float] = {}
    for name in running_study.sites:
        log = running_study.folder / "deployment" / "sites" / name / "logs" / "worker.jsonl"
        for line in log.read_text().splitlines():
            worked = _WORKED.search(json.loads(line)["text"])
            if worked and int(worked[1]):
                longest[int(worked[1])] = max(longest.get(int(worked[1]), 0.0), float(worked[2]))
    return [longest[number] for number in sorted(longest)]


def _idle(running_study: Deployed, seconds: float) -> dict[str, float]:
    """Wait until the first site's worker has unloaded, and look at its node."""
    name = running_study.sites[0]
    run_folder = running_study.folder / "deployment" / "sites" / name / "run"
    node = running_study.processes[name].pid

    def is_idle() -> bool:
        working = {"training worker", "ClientApp"} & {kind_of(each) for each in descendants(node)}
        return not working and read_contact(run_folder).get("state") == "connected"

    running_study.until(is_idle, "an idle node", _CONNECT_S)
    time.sleep(2.0)
    return idle(node, seconds)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Work(**json.loads(sys.argv[2])))
