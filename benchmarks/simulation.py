"""Simulation time: FedCAD's engine against plain torch (the practical limit) and Flower's own engine.

Every column takes the same steps on the same cases from the same parameters, in a process of its own with
the same number of worker processes and one thread each. Times count from the start of that process, imports
included; images are prepared before. ``python -m benchmarks.simulation --help``.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process_tree import measure
from benchmarks.tables import Goal, goals_table, machine, markdown, ratios, report, spread
from benchmarks.workload import prepare, workload

PLAIN, OURS, FLOWER = "plain_training", "fedcad_engine", "flower_engine"
TITLES = {PLAIN: "plain torch", OURS: "FedCAD in-process", FLOWER: "Flower (Ray)"}
SAME_WORK = 1e-4
"""Relative difference of the final Σ|w| above which two columns did not do the same work."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "THP_MEM_ALLOC_ENABLE": "1"}
"""Of every column: one thread, and huge pages for torch's large tensors, which helps all of them."""
_MEMORY_ROUNDS = 3
_FEW = 8
"""Sites of the settings that are repeated."""
_FLOWER_LEAST = {"cnn": 2.0, "resnet18": 2.5}
_NETWORKS = tuple(_FLOWER_LEAST)
_WHOLE_RUN = {5: 1.25, 10: 1.15}


@dataclass(frozen=True)
class Timing:
    """One run of one column; seconds, MB."""

    wall: float
    cpu: float
    startup: float
    first: float
    steady: float
    total: float
    peak_pss_mb: float


def run_once(engine: str, folder: Path, rounds: int, workers: int, *, memory: bool = False) -> Timing:
    """Run one column and return what it took."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "benchmarks.one_run", engine, str(folder), str(rounds)]
        cost = measure([*command, str(workers), result.name], ENVIRONMENT, memory=memory)
        found = json.loads(Path(result.name).read_text())
    ends = found["ends"]
    later = [end - start for start, end in itertools.pairwise(ends)]
    return Timing(
        wall=cost.wall_s,
        cpu=cost.cpu_s,
        startup=found["started"] - cost.started,
        first=ends[0] - found["started"],
        steady=statistics.median(later) if later else float("nan"),
        total=float(found["sum"]),
        peak_pss_mb=cost.peak_pss_mb,
    )


@dataclass(frozen=True)
class Setting:
    """One table: a network, a number of sites, a number of rounds, the columns."""

    network: str
    sites: int
    rounds: int
    engines: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the table's rows have in common."""
        work = workload(self.network, self.sites)
        steps = f"{work.steps} steps of {work.batch} images of {work.size}²"
        return f"{self.network}, {self.sites} sites, {self.rounds} rounds, {steps} a site and round"


def run_setting(setting: Setting, folder: Path, *, repetitions: int, workers: int) -> dict[str, list[Timing]]:
    """Run every column in turn, again and again; check that all did the same work."""
    prepare(workload(setting.network, setting.sites), folder)
    found: dict[str, list[Timing]] = {engine: [] for engine in setting.engines}
    for repetition in range(repetitions):
        for engine in setting.engines:
            found[engine].append(run_once(engine, folder, setting.rounds, workers))
            print(
                f"  {setting.title}: repetition {repetition + 1}, {engine}: {found[engine][-1]}", flush=True
            )
    sums = [timing.total for timings in found.values() for timing in timings]
    if max(sums) - min(sums) > SAME_WORK * max(sums):
        raise RuntimeError(f"the columns of {setting.title} did not do the same work: {sums}")
    return found


def table(found: dict[str, list[Timing]], memory: dict[str, float]) -> str:
    """Return one row for each column."""
    rows = [
        [
            TITLES[engine],
            *(
                spread([getattr(timing, part) for timing in timings])
                for part in ("wall", "startup", "first", "steady", "cpu")
            ),
            f"{memory[engine]:.0f}" if engine in memory else "-",
        ]
        for engine, timings in found.items()
    ]
    header = ["", "whole run s", "start-up s", "round 1 s", "steady round s", "CPU s", "peak PSS MB"]
    return markdown(header, rows)


def goals_of(setting: Setting, found: dict[str, list[Timing]], memory: dict[str, float]) -> list[Goal]:
    """Return the goals that this setting says something about."""

    def ratio(part: str, above: str, below: str) -> tuple[float, ...]:
        return ratios([getattr(t, part) for t in found[above]], [getattr(t, part) for t in found[below]])

    where = f"{setting.network}, {setting.sites} sites, {setting.rounds} rounds"
    goals = [Goal(f"{where}: steady round, ours / plain", ratio("steady", OURS, PLAIN), 1.05)]
    if setting.rounds in _WHOLE_RUN:
        limit = _WHOLE_RUN[setting.rounds]
        goals.append(Goal(f"{where}: whole run, ours / plain", ratio("wall", OURS, PLAIN), limit))
    if FLOWER in found and setting.rounds == 5:
        limit = _FLOWER_LEAST[setting.network]
        goals.append(Goal(f"{where}: whole run, Flower / ours", ratio("wall", FLOWER, OURS), limit, True))
    if FLOWER in found and memory:
        share = memory[OURS] / memory[FLOWER]
        goals.append(Goal(f"{where}: peak memory, ours / Flower", (share,), 0.5))
    return goals


def settings_of(*, quick: bool) -> list[Setting]:
    """Return what is run: everything, or a smoke run."""
    every = (PLAIN, OURS, FLOWER)
    if quick:
        return [Setting("cnn", 8, 2, every)]
    return [
        *(Setting(network, 8, 5, every) for network in _NETWORKS),
        *(Setting(network, 8, 10, (PLAIN, OURS)) for network in _NETWORKS),
        *(Setting(network, 32, 5, every) for network in _NETWORKS),
    ]


def run_all(
    settings: Sequence[Setting], root: Path, *, repetitions: int, workers: int
) -> tuple[list[str], dict[str, Any]]:
    """Run settings, those of many sites once; memory is measured once a network, in short runs of its own."""
    sections, goals, plain = [], list[Goal](), list[dict[str, Any]]()
    before, measured = machine(), dict[str, dict[str, float]]()
    for setting in settings:
        folder = root / f"{setting.network}-{setting.sites}"
        often = repetitions if setting.sites == _FEW else 1
        found = run_setting(setting, folder, repetitions=often, workers=workers)
        if setting.network not in measured:
            measured[setting.network] = {
                engine: run_once(engine, folder, _MEMORY_ROUNDS, workers, memory=True).peak_pss_mb
                for engine in setting.engines
            }
        memory = measured[setting.network] if setting.sites == _FEW else {}
        sections.append(f"**{setting.title}**\n\n{table(found, memory)}")
        mine = goals_of(setting, found, memory)
        goals += mine
        timings = {engine: [vars(timing) for timing in timings] for engine, timings in found.items()}
        plain.append({"setting": setting.title, "timings": timings, "peak_pss_mb": memory})
    sections.append(goals_table(goals))
    kept = {"machine": before, "results": plain, "goals": [goal.to_plain() for goal in goals]}
    return sections, kept | {"repetitions": repetitions, "workers": workers}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of every column")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 rounds of the small network")
    parser.add_argument("--only", help="only settings whose title contains this")
    parser.add_argument("--work", type=Path, help="folder for images, kept; default: a temporary one")
    chosen = parser.parse_args(arguments)
    settings = [each for each in settings_of(quick=chosen.quick) if (chosen.only or "") in each.title]
    repetitions = 1 if chosen.quick else chosen.repetitions
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.work or Path(temporary)
        sections, plain = run_all(settings, root, repetitions=repetitions, workers=chosen.workers)
    report("Simulation", sections, plain, chosen.out)


if __name__ == "__main__":
    main()
