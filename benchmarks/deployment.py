"""FedCAD's deployment against Flower's own on loopback: a round's time, memory, large models, an idle node.

``python -m benchmarks.deployment --help``. Everything runs over TLS with node keys, as processes of its own.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import deployment_fedcad, deployment_flower
from benchmarks.deployment_fedcad import Work
from benchmarks.tables import Goal, goals_table, machine, markdown, ratios, report, spread

SMALL, LARGE = 250_000, 25_000_000
"""Parameters: 1 MB and 100 MB as float32."""
_PHASE, _MEMORY, _IDLE_MB, _IDLE_PERCENT = 1.2, 0.65, 300.0, 1.0
_MEMORY_SITES = 4
_IDLE_S = 60.0
_UNLOADS_S = 30.0
_BYTES = {"float32": 4, "float16": 2}
_KINDS = ("ServerApp", "SuperLink", "SuperNode", "ClientApp", "training worker")


@dataclass(frozen=True)
class Setting:
    """One comparison with Flower's app: sites, parameters, rounds."""

    sites: int
    values: int
    rounds: int

    @property
    def title(self) -> str:
        """What is compared, in words."""
        return f"{self.sites} nodes, {self.values * 4 / 1e6:.0f} MB"


def settings_of(*, quick: bool) -> list[Setting]:
    """Return what is compared: everything, or a smoke run."""
    if quick:
        return [Setting(2, SMALL, 2)]
    return [Setting(2, SMALL, 4), Setting(4, SMALL, 4), Setting(2, LARGE, 3), Setting(4, LARGE, 3)]


def payloads_of() -> list[Work]:
    """Return the large models: bytes of the message, not of the parameters, for half precision."""
    return [
        Work(sites=3, values=62_500_000, rounds=2),
        Work(sites=3, values=62_500_000, rounds=2, precision="float16"),
        Work(sites=1, values=250_000_000, rounds=2),
        Work(sites=1, values=250_000_000, rounds=2, precision="float16"),
    ]


def compare(setting: Setting, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run FedCAD, then Flower's app with as many parameters, each in an empty folder."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        ours = deployment_fedcad.run(Path(folder), Work(setting.sites, setting.values, setting.rounds))
    with tempfile.TemporaryDirectory(dir=root) as folder:
        size = {"sites": setting.sites, "values": ours["values"], "rounds": setting.rounds}
        flower = deployment_flower.run(Path(folder), **size)
    print(f"  {setting.title}, FedCAD: {json.dumps(ours)}", flush=True)
    print(f"  {setting.title}, Flower: {json.dumps(flower)}", flush=True)
    return ours, flower


def overhead(found: dict[str, Any]) -> list[float]:
    """Return the seconds of a phase without training, one for each round from the second on."""
    training = found.get("training", [0.0] * (1 + len(found["phases"])))[1:]
    return [whole - work for whole, work in zip(found["phases"], training, strict=True)]


Pair = tuple[dict[str, Any], dict[str, Any]]


def phase_table(found: dict[Setting, list[Pair]]) -> str:
    """Return the rounds of both, a row each."""
    header = ["", "", "phase s", "of it training s", "closing s", "ServerApp peak MB", "SuperLink peak MB"]
    rows = []
    for setting, pairs in found.items():
        for number, name in enumerate(("FedCAD", "Flower")):
            runs = [pair[number] for pair in pairs]
            cells = [
                spread([each for run in runs for each in run["phases"]]),
                spread([each for run in runs for each in run.get("training", ())[1:]]),
                spread([each for run in runs for each in run.get("closing", ())]),
            ]
            peaks = [
                spread([run["peak_mb"].get(kind, 0.0) for run in runs], 0)
                for kind in ("ServerApp", "SuperLink")
            ]
            rows.append([setting.title, name, *cells, *peaks])
    return markdown(header, rows)


def goals_of(found: dict[Setting, list[Pair]]) -> list[Goal]:
    """Return the goals of time and memory."""
    goals = []
    for setting, pairs in found.items():
        above = [each for ours, _ in pairs for each in overhead(ours)]
        below = [each for _, flower in pairs for each in flower["phases"]]
        text = f"{setting.title}: a phase without training, ours / Flower"
        goals.append(Goal(text, ratios(above, below), _PHASE))
        if setting.sites == _MEMORY_SITES and setting.values == LARGE:
            peaks = [[run["peak_mb"]["ServerApp"] for run in pair] for pair in pairs]
            text = f"{setting.title}: peak memory of the ServerApp, ours / Flower"
            goals.append(Goal(text, tuple(ours / flower for ours, flower in peaks), _MEMORY))
    return goals


def payload(work: Work, root: Path) -> dict[str, Any]:
    """Run a study of a large model."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        found = deployment_fedcad.run(Path(folder), work)
    print(f"  payload {work}: {json.dumps(found)}", flush=True)
    return found


def payload_table(found: Sequence[tuple[Work, dict[str, Any]]]) -> str:
    """Return times and memory of large models, a row each."""
    header = ["", "round s", "of it training s", "closing s", "delivery s"]
    rows = []
    for work, each in found:
        megabytes = each["values"] * 4 / 1e6
        message = each["values"] * _BYTES[work.precision] / 1e6
        rows.append(
            [
                f"{work.sites} nodes, {megabytes:.0f} MB as {work.precision} ({message:.0f} MB a message)",
                spread([each["first"], *each["phases"]], 1),
                spread(each["training"], 1),
                spread(each["closing"], 1),
                f"{each['delivery']:.1f}",
                *(f"{each['peak_mb'].get(kind, 0.0):.0f}" for kind in _KINDS),
            ]
        )
    return markdown([*header, *(f"{kind} peak MB" for kind in _KINDS)], rows)


def idle_goals(root: Path, seconds: float) -> list[Goal]:
    """Look at a node whose study is over and whose worker has unloaded; it still asks often for work."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        work = Work(sites=1, values=SMALL, rounds=1, worker_idle_s=_UNLOADS_S)
        found = deployment_fedcad.run(Path(folder), work, idle_s=seconds)["idle"]
    print(f"  idle: {found}", flush=True)
    return [
        Goal("an idle node: memory (PSS) of all its processes", (found["pss_mb"],), _IDLE_MB, unit="MB"),
        Goal(
            f"an idle node: CPU over {seconds:.0f} s",
            (found["core_percent"],),
            _IDLE_PERCENT,
            unit="% of a core",
        ),
    ]


def run_all(
    root: Path, *, quick: bool, repetitions: int, only: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Run the parts that are wanted; FedCAD and Flower take turns."""
    before, sections, goals = machine(), list[str](), list[Goal]()
    plain: dict[str, Any] = {"machine": before, "repetitions": repetitions}
    if "rounds" in only:
        found: dict[Setting, list[Pair]] = {setting: [] for setting in settings_of(quick=quick)}
        for _ in range(repetitions):
            for setting, pairs in found.items():
                pairs.append(compare(setting, root))
        sections.append(phase_table(found))
        goals += goals_of(found)
        plain["rounds"] = {setting.title: pairs for setting, pairs in found.items()}
    if "idle" in only:
        goals += idle_goals(root, 5.0 if quick else _IDLE_S)
    if "payload" in only and not quick:
        large = [(work, payload(work, root)) for work in payloads_of()]
        sections.append(f"**Large models**\n\n{payload_table(large)}")
        plain["payload"] = [{"work": vars(work), "found": each} for work, each in large]
    load = os.getloadavg()[1]
    sections.append(
        f"Load average at the start {before['load_at_start']}, over the last five minutes {load:.1f}."
    )
    sections.append(goals_table(goals))
    return sections, plain | {"goals": [goal.to_plain() for goal in goals]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parts = ("rounds", "idle", "payload")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke run, without large models")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts)
    chosen = parser.parse_args(arguments)
    repetitions = 1 if chosen.quick else chosen.repetitions
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        sections, plain = run_all(root, quick=chosen.quick, repetitions=repetitions, only=chosen.only)
    report("Deployment", sections, plain, chosen.out)


if __name__ == "__main__":
    main()
