"""``make verify``: the slower checks, run as a user would run them; writes ``docs/verification.md``.

Each check is a function that returns what it measured, or raises ``AssertionError`` with what is wrong. The
table names the commit and the machine. Checks on real images are left out, and said to be, where the images
are absent.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_matrix
import yaml

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
FEDCAD = Path(sys.executable).parent / "fedcad"
DEMO = ROOT / "configs/simulations/chest-xray-phantom.yaml"
REAL = ROOT / "configs/simulations/chest-xray-real.yaml"
SEEDS = (1, 2, 3)
RESULT = {True: "passed", False: "**failed**"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    check: str
    passed: bool
    measured: str
    seconds: float


class Workspace:
    """A folder for runs, with what several checks share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real: dict[str, Any] | None = None
        self.fault_table: list[str] = []

    def simulate(self, config: Path, name: str, *options: str) -> dict[str, Any]:
        """Run a simulation to its end and return its results."""
        out = self.folder / name
        command = [FEDCAD, "simulate", config, "--out", out, "--archives", self.folder / "archives", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        results: dict[str, Any] = json.loads((out / "results.json").read_text())
        return results

    def variant(self, config: Path, name: str, **changes: Any) -> Path:
        """Write a simulation file that differs in some keys from a shipped one."""
        plain = yaml.safe_load(config.read_text())
        plain["study"] = str((config.parent / plain["study"]).resolve())
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain | changes))
        return path

    def real(self) -> dict[str, Any]:
        """Return the shipped real study's results, run once."""
        if self._real is None:
            self._real = self.simulate(REAL, "real", "--data", str(DATA))
        return self._real

    def federated_only(self, name: str) -> Path:
        """Return the real simulation without comparisons: the federated bits are the same."""
        return self.variant(REAL, name, baselines={"alone": False, "pooled": False})


def slow_tests(_: Workspace) -> str:
    """Slow tests (`pytest -m slow`)"""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "slow", "-q", "-n", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-800:]
    return done.stdout.strip().splitlines()[-1].strip("= ")


def demo_is_fast(work: Workspace) -> str:
    """The demo takes under 4 minutes and writes its report"""
    started = time.monotonic()
    results = work.simulate(DEMO, "demo")
    seconds = time.monotonic() - started
    training = [site for site in results["sites"] if site["role"] == "training"]
    assert (work.folder / "demo" / "report.html").stat().st_size > 10_000
    assert len(training) >= 4, f"{len(training)} hospitals"
    assert seconds < 240, f"{seconds:.0f} s"
    return f"{seconds:.0f} s, {len(training)} hospitals"


def demo_gains(work: Workspace) -> str:
    """Over three seeds the federated model beats the mean of sites alone, interval above 0"""
    config = work.variant(DEMO, "demo-seeds", seeds=list(SEEDS))
    out = work.folder / "demo-seeds"
    command = [FEDCAD, "simulate", config, "--out", out, "--archives", work.folder / "archives"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    found = []
    for seed in SEEDS:
        results = json.loads((out / f"seed-{seed}" / "results.json").read_text())
        gain = next(
            each
            for each in results["comparisons"]
            if each["against"] == "alone" and each["on"] == "mean of sites"
        )
        found.append((seed, gain["difference"], gain["interval"]))
    text = "; ".join(f"seed {s}: {d:+.3f} ({i[0]:+.3f} to {i[1]:+.3f})" for s, d, i in found)
    assert all(interval[0] > 0 for _, _, interval in found), text
    return text


def real_is_fast(work: Workspace) -> str:
    """The real chest X-rays take under 15 minutes with all comparisons"""
    started = time.monotonic()
    results = work.real()
    seconds = time.monotonic() - started
    assert seconds < 900, f"{seconds:.0f} s"
    models = sorted({each["model"] for each in results["evaluations"]})
    assert {"federated", "pooled", "ensemble"} <= set(models)
    return f"{seconds:.0f} s, models {', '.join(models)}"


def second_run_is_identical(work: Workspace) -> str:
    """A second run on one worker gives the same model_sha256"""
    config = work.variant(
        REAL,
        "again",
        baselines={"alone": False, "pooled": False},
        engine={"name": "in-process", "workers": 1},
    )
    return _same(work, work.simulate(config, "again", "--data", str(DATA)))


def flower_is_identical(work: Workspace) -> str:
    """Flower's engine gives the same model_sha256"""
    config = work.federated_only("flower")
    return _same(work, work.simulate(config, "flower", "--data", str(DATA), "--engine", "flower"))


def killed_is_identical(work: Workspace) -> str:
    """Killed with -9 four times and resumed: the same model_sha256"""
    config, out = work.federated_only("killed"), work.folder / "killed"
    command = [FEDCAD, "simulate", config, "--out", out, "--data", DATA]
    command += ["--archives", work.folder / "archives"]
    kills = 0
    for closed in (1, 4, 9, 15):
        process = subprocess.Popen(
            [*command, "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and _rounds_closed(out) < closed:
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 4, f"only {kills} kills before the run ended"
    return _same(work, work.simulate(config, "killed", "--data", str(DATA), "--resume"))


def _rounds_closed(out: Path) -> int:
    names = [path.stem for path in (out / "checkpoints").glob("round-*.json")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def _same(work: Workspace, results: dict[str, Any]) -> str:
    expected, got = work.real()["model_sha256"], results["model_sha256"]
    assert got == expected, f"{got[:16]} instead of {expected[:16]}"
    return f"{got[:16]}…"


def every_fault(work: Workspace) -> str:
    """The fault matrix: real processes killed, cut off, starved, misdated, refused (table below)"""
    table = fault_matrix.run(work.folder / "faults", set())
    work.fault_table = table.lines()
    results = [row.result for row in table.rows]
    failed = [f"{row.done}, {row.when}" for row in table.rows if row.result == fault_matrix.FAILED]
    assert not failed, f"{len(failed)} of {len(results)} rows failed: {'; '.join(failed)}"
    left_out = results.count(fault_matrix.LEFT_OUT)
    return f"{len(results) - left_out} rows passed, {left_out} left out"


CHECKS: list[tuple[Callable[[Workspace], str], bool]] = [
    (slow_tests, False),
    (demo_is_fast, False),
    (demo_gains, False),
    (real_is_fast, True),
    (second_run_is_identical, True),
    (flower_is_identical, True),
    (killed_is_identical, True),
    (every_fault, False),
]


def run(check: Callable[[Workspace], str], work: Workspace) -> Row:
    """Run one check."""
    name = (check.__doc__ or check.__name__).strip()
    started = time.monotonic()
    try:
        measured, passed = check(work), True
    except AssertionError as error:
        measured, passed = str(error).replace("\n", " ").replace("|", "/")[-300:], False
    row = Row(name, passed, measured, time.monotonic() - started)
    print(f"{RESULT[passed]}  {name}: {measured}", flush=True)
    return row


def write_table(rows: list[Row], fault_table: list[str]) -> None:
    """Write docs/verification.md."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    lines = [
        "# Verification",
        "",
        f"Written by `make verify` on commit `{commit}`, {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}.",
        "",
        "| check | result | measured | seconds |",
        "|---|---|---|---|",
        *(f"| {row.check} | {RESULT[row.passed]} | {row.measured} | {row.seconds:.0f} |" for row in rows),
        "",
        *(["## Fault matrix", "", *fault_matrix.EXPLANATION, "", *fault_table, ""] if fault_table else []),
    ]
    (ROOT / "docs" / "verification.md").write_text("\n".join(lines))


def main() -> int:
    """Run every check that can run here; fail if one failed."""
    chosen = set(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="fedcad-verify-"))
    work, rows = Workspace(folder), []
    try:
        for check, needs_images in CHECKS:
            if chosen and check.__name__ not in chosen:
                continue
            if needs_images and not DATA.exists():
                name = (check.__doc__ or "").strip()
                rows.append(Row(name, True, "left out: the public images are not beside the repository", 0))
                continue
            rows.append(run(check, work))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not chosen:
        write_table(rows, work.fault_table)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
