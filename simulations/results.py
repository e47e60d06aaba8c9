"""``results.json``: everything that a finished or stopped simulation says, as plain data."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from fedcad.server.outcome import read_outcome
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import SiteInfo
from fedcad.shared.metrics.registry import statistics_for
from fedcad.shared.version import __version__
from fedcad.simulations.comparison import TestResults

FORMAT = 1
PARTS = ("train", "validation", "test")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, atomically."""
    write_bytes(path, json.dumps(value, indent=1, allow_nan=False).encode())


def outcome_of(folder: Path) -> dict[str, Any]:
    """Return how a run ended.

    Raises:
        CheckpointError: It has not ended.
    """
    outcome = read_outcome(folder)
    if outcome is None:
        raise CheckpointError(f"{folder}: the run has not ended; continue it with --resume")
    return outcome


def assemble(
    config: SimulationConfig,
    contract: Contract,
    *,
    outcome: Mapping[str, Any],
    sites: Sequence[Mapping[str, Any]],
    excluded: Sequence[tuple[str, str]],
    tests: TestResults | None,
) -> dict[str, Any]:
    """Put results together.

    Args:
        config: The simulation.
        contract: The federated study.
        outcome: How the federated run ended.
        sites: From :func:`describe_site`.
        excluded: Sites left out, with reasons.
        tests: Test statistics; None where the run stopped before any test.
    """
    study = contract.study
    return {
        "format": FORMAT,
        "simulation": config.name,
        "study": study.name,
        "description": config.description,
        "seed": study.seed,
        **outcome,
        "rounds_planned": study.rounds,
        "primary_metric": statistics_for(study).primary,
        "classes": list(study.task.classes),
        "model": study.model.name,
        "parameters": contract.layout.trained_size,
        "algorithm": study.algorithm.name,
        "privacy": study.privacy.mechanism,
        "sites": list(sites),
        "excluded_sites": [{"name": name, "reason": reason} for name, reason in excluded],
        "evaluations": list(tests.evaluations()) if tests else [],
        "comparisons": list(tests.comparisons()) if tests else [],
    }


def describe_site(info: SiteInfo, *, is_external: bool) -> dict[str, Any]:
    """Return what a site said of itself, in the form of the results."""
    summary = json.loads(info.summary)
    parts = summary["parts"]
    return {
        "name": info.site,
        "role": "external" if is_external else "training",
        "patients": {part: parts[part]["patients"] for part in PARTS},
        "cases": dict(info.cases),
        "labels": {part: parts[part]["labels"] for part in PARTS},
        "acquisition": {"vendor": summary["vendors"], "view": summary["views"]},
        "rejects": summary["rejects"],
    }


def environment() -> dict[str, str]:
    """Return versions and machine, on which the last bits of the results depend."""
    return {
        "fedcad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
