"""Run all benchmarks and write ``docs/benchmarks.md``: ``python -m benchmarks [--quick]``."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.tables import machine, markdown

_DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BUSY = """
**The machine was busy with other work.** Ratios of seconds are then no measurement, in either direction (look
at their spread); CPU seconds of the process trees and memory say more. Repeat it on a quiet machine.
"""
_PURPOSE = {
    "simulation": """\
Every column takes the same SGD steps on the same cases from the same parameters (checked: the final Σ|w|
agrees to 10⁻⁴) in a process of its own, with two worker processes of one thread. Seconds count from the start
of that process, imports included; images, archives and caches are prepared before. *Plain torch* is the
practical limit: forked workers that share memory, no checkpoint, no hash, no check of any number. *Flower* is
its own simulation engine (Ray) with its stock FedAvg and a plain client, one CPU a client. *FedCAD* is the
federated part of `fedcad simulate`: contract, plans, checks, exact sums, and a checkpoint that is on disk
before the next round; its fork server is started before torch is imported (`start_fork_server`). All columns
have the same environment: one thread, torch's large tensors in huge pages.
CPU seconds are of the whole process tree. Peak memory (proportional set size) comes from a run of 3 rounds of
its own, as looking at it costs time. NVFlare and pfl are not measured; they need environments of their own.
""",
    "aggregation": """\
One update is 25 million float32 values (100 MB). CPU time of adding updates and taking the mean, one thread;
making the updates is not timed. Flower's function gets all updates together, as its strategy does; the others
get them one by one. Ours is exact in any order, which costs 8 bytes a parameter.""",
    "deployment": """\
Coordinator and nodes as processes of their own over TLS on loopback, with node keys, SQLite and a separate
executor, against Flower's own programs and its smallest app (stock FedAvg; the client changes the parameters
and sends them back, without torch). A phase is one question to all nodes and their answers: from the start
of a round to that of the next, mean and checkpoint included; round 1 is left out. FedCAD's client trains one
step on four small images, whose time, as the sites' logs have it, is taken off for the ratio. Peak memory is
the kernel's high-water mark of resident memory; of all processes of one kind, the largest. The idle node has
done a study within the last minutes, its worker has unloaded, and it still asks every second for work.""",
    "ingestion": "Milliseconds an image, against MONAI's reader and caches and against the bare decoders.",
}


def run(name: str, out: Path, *, quick: bool, repetitions: int) -> dict[str, Any]:
    """Run one benchmark and return what it wrote."""
    options = ["--out", str(out), "--repetitions", str(1 if quick else repetitions)]
    if quick:
        options += ["--images", "4"] if name == "ingestion" else ["--quick"]
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=True)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def section(name: str, found: dict[str, Any]) -> str:
    """Return a benchmark's part of the document."""
    text = found["text"] if "text" in found else _rows(found["rows"])
    return f"## {name.capitalize()}\n\n{_PURPOSE[name]}\n\n{text}"


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    header = ["what", "ours ms", "other ms", "against", "ours / other or speed-up", "goal", ""]
    lines = [
        [
            row["name"],
            f"{row['ours_ms']:.3f}",
            f"{row['other_ms']:.3f}",
            row["other"],
            f"{row['ratio']:.2f} [{row['lowest']:.2f}-{row['highest']:.2f}]",
            str(row["goal"]),
            "met" if row["met"] else "**falls short**",
        ]
        for row in rows
    ]
    return markdown(header, lines)


def shortfalls(results: dict[str, dict[str, Any]]) -> str:
    """Say plainly which goals are not reached."""
    lines = []
    for found in results.values():
        for goal in found.get("goals", []):
            if not goal["met"]:
                sign, unit = "≥" if goal["at_least"] else "≤", goal["unit"]
                lines.append(
                    f"* {goal['text']}: {goal['median']:.2f} {unit}, goal {sign} {goal['limit']:g} {unit}"
                )
        lines += [
            f"* {row['name']} against {row['other']}: {row['ratio']:.2f}, goal {row['goal']}"
            for row in found.get("rows", [])
            if not row["met"]
        ]
    return "\n".join(lines) or "Nothing: every goal is reached."


def document(results: dict[str, dict[str, Any]], before: dict[str, Any], *, quick: bool) -> str:
    """Return the whole document."""
    versions = ", ".join(f"{name} {number}" for name, number in before["versions"].items())
    commit = subprocess.run(
        ["git", "-C", str(_DOCUMENT.parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    warning = _BUSY if (before["load_at_start"] or 0.0) > before["cores"] / 2 else ""
    smoke = "**A smoke run: the figures mean nothing.**\n\n" if quick else ""
    head = f"""# Benchmarks

{smoke}Written by `python -m benchmarks` (or `make bench`) on {datetime.now(UTC):%Y-%m-%d}, commit `{commit}`.
Machine: {before["cpu"]}, {before["cores"]} cores, {before["memory_gb"]} GB; Python {before["python"]};
{versions}; load average at the start {before["load_at_start"]}.
Figures are median [min-max] over interleaved repetitions; ratios are taken inside one repetition. Ratios hold
on other machines, absolute times do not.
{warning}

## What falls short

{shortfalls(results)}"""
    return "\n\n".join([head, *(section(name, found) for name, found in results.items())]) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run; prints the document")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", choices=sorted(_PURPOSE), nargs="+", default=list(_PURPOSE))
    parser.add_argument("--keep", type=Path, help="folder for the JSON files; those already there are used")
    chosen = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = {}
        for name in chosen.only:
            out = folder / f"{name}.json"
            results[name] = (
                json.loads(out.read_text())
                if out.exists()
                else run(name, out, quick=chosen.quick, repetitions=chosen.repetitions)
            )
    text = document(results, before, quick=chosen.quick)
    if chosen.quick:
        print(text)
    else:
        _DOCUMENT.write_text(text, encoding="utf-8")
        print(f"written: {_DOCUMENT}")


if __name__ == "__main__":
    main()
