"""The same steps as a federated run of ``fedcad simulate`` does them: contract, pool, rounds, checkpoints."""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run(folder: Path, rounds: int, workers: int) -> dict[str, object]:
    """Run in a temporary folder on the same disk; return times and the final sum of magnitudes."""
    # First of all: the server imports at the same time as this process.
    from fedcad.simulations.engines.early import start_fork_server

    start_fork_server()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return _run(folder, rounds, workers, Path(name))


def _run(folder: Path, rounds: int, workers: int, out: Path) -> dict[str, object]:
    from fedcad.simulations.engines.early import collector_off

    with collector_off():
        import torch
        from safetensors.torch import load_file

        from benchmarks.workload import SEED, Workload, study_of
        from fedcad.simulations import studies
        from fedcad.simulations.engines.pool import WorkerPool
        from fedcad.simulations.engines.simulated_client import make_simulated_app
        from fedcad.simulations.runs import Run, SimulatedSite

    torch.set_num_threads(1)
    plain = json.loads((folder / "work.json").read_text())
    times: dict[str, list[float]] = {"started": [], "round": []}

    def observe(event: Mapping[str, Any]) -> None:
        if event["event"] in times:
            times[event["event"]].append(time.time())

    with WorkerPool(make_simulated_app, workers) as pool:
        contract = studies.federated(study_of(Workload(**plain["work"]), rounds), SEED)
        sites = [SimulatedSite(name, (file,)) for name, file in plain["site_files"].items()]
        Run("federated", out, contract, sites).execute(pool, observe)
    model = load_file(out / "model.safetensors")
    total = sum(float(each.double().abs().sum()) for each in model.values())
    return {"started": times["started"][0], "ends": times["round"], "sum": total}
