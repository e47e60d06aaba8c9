"""Studies, simulations and cases that are small enough for tests, built with the real code."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.study import StudyConfig
from fedcad.simulations.archive_writer import SiteArchive
from fedcad.simulations.hospitals import build_hospitals
from fedcad.simulations.simulate import Places, simulate_file

CLASSES = ("normal", "opacity", "nodule")


def study_plain(**changes: Any) -> dict[str, Any]:
    """Return a small study as plain data, with whole sections replaced."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "task": {"kind": "classification", "classes": list(CLASSES)},
        "preprocessing": {"size": 32},
        "model": {"name": "cnn", "convolutions": [{"features": 4}, {"features": 8}]},
        "training": {
            "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
            "batch_size": 8,
            "local_epochs": 1,
        },
        "algorithm": {"name": "fedavg"},
        "rounds": 2,
        "evaluation": {"bootstrap_replicates": 20},
    }
    return plain | changes


def make_study(**changes: Any) -> StudyConfig:
    """Return a small study."""
    return StudyConfig.model_validate(study_plain(**changes))


def simulation_plain(**changes: Any) -> dict[str, Any]:
    """Return a small simulation as plain data: 60 patients at three hospitals."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "study": "study.yaml",
        "data": {"kind": "phantom", "patients": 60, "size": 64},
        "partition": {"kind": "iid", "sites": 3},
        "engine": {"name": "in-process", "workers": 2},
    }
    return plain | changes


def make_simulation(**changes: Any) -> SimulationConfig:
    """Return a small simulation."""
    return SimulationConfig.model_validate(simulation_plain(**changes))


def write_files(folder: Path, *, study: Mapping[str, Any], simulation: Mapping[str, Any]) -> Path:
    """Write both files and return the simulation's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(dict(study)))
    path = folder / "simulation.yaml"
    path.write_text(yaml.safe_dump(dict(simulation)))
    return path


class MemoryCases:
    """A case source in memory: random images of one site, brighter by class."""

    def __init__(
        self, counts: Mapping[str, int], *, size: int = 32, seed: int = 0, classes: Sequence[str] = CLASSES
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._labels = {
            part: [classes[i % len(classes)] for i in range(count)] for part, count in counts.items()
        }
        self._images = {
            part: torch.rand((count, 1, size, size), generator=generator)
            + torch.arange(count).remainder(len(classes)).view(-1, 1, 1, 1) * 0.3
            for part, count in counts.items()
        }
        self._first = 0

    def patients(self, part: str) -> NDArray[np.int64]:
        return np.arange(len(self._labels.get(part, ())), dtype=np.int64) // 2

    def labels(self, part: str) -> list[str]:
        return self._labels.get(part, [])

    def inputs(self, part: str, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"image": self._images[part][list(indices)].clone()}

    def summary(self) -> dict[str, Any]:
        return {"parts": {}}


def spread_cases(train: int = 10, validation: int = 4, test: int = 6, *, seed: int = 0) -> MemoryCases:
    """Return a site in memory with cases in every part."""
    return MemoryCases({"train": train, "validation": validation, "test": test}, seed=seed)


def build_archives(
    root: Path, *, patients: int = 60, sites: int = 1, size: int = 64
) -> dict[str, SiteArchive]:
    """Write the archives of emulated hospitals of phantom patients below a folder."""
    config = make_simulation(
        data={"kind": "phantom", "patients": patients, "size": size},
        partition={"kind": "iid", "sites": sites},
    )
    return build_hospitals(config, data=None, root=root).archives


class Simulated(NamedTuple):
    """What a simulation left in its folder."""

    folder: Path
    results: dict[str, Any]
    events: list[dict[str, Any]]
    printed: str


def simulate(
    folder: Path,
    *,
    archives: Path,
    study: StudyConfig | None = None,
    simulation: SimulationConfig | None = None,
    data: Path | None = None,
    resume: bool = False,
    report: bool = False,
) -> Simulated:
    """Run a whole simulation in this process, as the command does; the report takes most of the time."""
    printed = io.StringIO()
    with nullcontext() if report else mock.patch(f"{simulate_file.__module__}.write_report"):
        simulate_file(
            simulation or make_simulation(),
            study or make_study(),
            places=Places(out=folder, archives=archives, data=data),
            resume=resume,
            console=Console(file=printed, width=200),
        )
    return read(folder, printed.getvalue())


def read(folder: Path, printed: str = "") -> Simulated:
    """Read what a simulation left."""
    results = json.loads((folder / "results.json").read_text())
    events = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return Simulated(folder, results, events, printed)


def rounds_of(run: Simulated) -> list[dict[str, Any]]:
    """Return the log's closed rounds."""
    return [event for event in run.events if event["event"] == "round"]


def without_times(run: Simulated) -> tuple[Any, Any]:
    """Return results and events without what a clock decides."""
    results = {key: value for key, value in run.results.items() if key not in ("time", "engine")}
    return results, [_without_seconds(event) for event in run.events]


def _without_seconds(event: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in event.items() if key != "seconds"}
    if "participation" in kept:
        # How long a failure took is measured, not scheduled.
        kept["participation"] = [
            part | {"delay_s": None} if part["status"] == "lost" else part for part in kept["participation"]
        ]
    return kept
