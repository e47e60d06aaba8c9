"""What a coordinator's operator does to a running study, with the commands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from deployed_study import DeployedStudy
from faults.kills import end
from faults.table import Bench

FEDCAD = Path(sys.executable).parent / "fedcad"


def operations(bench: Bench) -> None:
    """Pause and resume; stop and resume."""
    with DeployedStudy(bench.folder / "operations", bench.runs["strict"], bench.archives) as deployed:
        deployed.start()
        deployed.wait(lambda: deployed.has_plan("site-1", 1), "training")
        with bench.table.row(
            "pause, then resume", "while sites train", "the round is closed, none follows; then it goes on"
        ) as row:
            row.measured = _halt(deployed, "pause")
            assert deployed.study.outcome() is None, "a paused study has no outcome"
        deployed.wait(lambda: deployed.has_plan("site-1", deployed.closed() + 1), "training")
        with bench.table.row(
            "stop, then resume", "while sites train", "the result so far is there; then it goes on"
        ) as row:
            row.measured = _halt(deployed, "stop", "--reason", "to look at it")
            outcome = deployed.study.outcome()
            assert outcome is not None
            assert outcome.status == "stopped", outcome
        _command("resume", deployed)
        deployed.wait(deployed.study.is_running, "the study's new process")
        end(bench, deployed, "both of these")


def _command(name: str, deployed: DeployedStudy, *options: str) -> None:
    command = [str(FEDCAD), "server", name, str(deployed.consortium.folder), deployed.study.name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def _halt(deployed: DeployedStudy, name: str, *options: str) -> str:
    """Pause or stop the study; resume it after a pause."""
    _command(name, deployed, *options)
    before = deployed.closed()
    deployed.wait(lambda: not deployed.study.is_running(), "the end of the study's process")
    halted = deployed.closed()
    assert halted in (before, before + 1), f"{before} rounds were closed, then {halted}"
    if name == "pause":
        _command("resume", deployed)
    return f"{before} rounds closed at the command, {halted} when it had halted"


SCENARIOS: tuple[Callable[[Bench], None], ...] = (operations,)
