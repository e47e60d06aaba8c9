"""kill -9 of every kind of process, in every phase of a study."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from consortium_processes import family_of
from deployed_study import PATIENCE_S, SITES, DeployedStudy
from faults.table import Bench, Table

UNDISTURBED = "the study ends; same model, every site counted once in every round, nothing left in an outbox"
AT_SITES = {"supernode": "SuperNode", "node": "supervisor of a hospital", "worker": "training worker"}
PHASES = (
    "before it is ready",
    "while sites train",
    "while updates are on their way",
    "between rounds",
    "during the last validation",
)


def _moment(deployed: DeployedStudy, phase: str, kind: str, site: str) -> bool:
    """Whether a phase is there for a kind of process, and the process lives."""
    if deployed.pid_of(kind, site) is None:
        return False
    if phase == PHASES[0]:
        return deployed.closed() == 0
    if phase == PHASES[1]:
        return deployed.trains(site, 1)
    if phase == PHASES[2]:
        return deployed.has_answered(site, 2)
    return deployed.closed() >= 2 if phase == PHASES[3] else deployed.is_validating(site)


def _kill_in(deployed: DeployedStudy, table: Table, phase: str, targets: dict[str, tuple[str, str]]) -> None:
    """Kill processes of some kinds, each at its site, when a phase has come; name -> (kind, site)."""
    waiting, until = dict(targets), time.monotonic() + PATIENCE_S
    while waiting:
        for name, (kind, site) in list(waiting.items()):
            if not _moment(deployed, phase, kind, site):
                continue
            del waiting[name]
            with table.row(f"kill -9 of the {name}", phase, "the study goes on") as row:
                before = deployed.closed()
                deployed.kill(kind, site)
                row.measured = f"{before} rounds closed"
        assert time.monotonic() < until, f"{phase}: no moment for {list(waiting)}; {deployed.words()}"
        time.sleep(0.005)


def _scenario(bench: Bench, name: str, targets: dict[str, tuple[str, str]], phases: tuple[str, ...]) -> None:
    with DeployedStudy(bench.folder / name, bench.runs["strict"], bench.archives) as deployed:
        deployed.start()
        for phase in phases:
            _kill_in(deployed, bench.table, phase, targets)
        end(bench, deployed, "all of these")


def end(bench: Bench, deployed: DeployedStudy, what: str) -> None:
    """Add the row of the study's end."""
    with bench.table.row(what, "in one study", UNDISTURBED) as row:
        deployed.until_ended()
        row.measured = f"model {deployed.require_undisturbed()}…"


def at_sites(bench: Bench) -> None:
    """Node, its supervisor and training worker, each at another hospital."""
    targets = {name: (kind, site) for (kind, name), site in zip(AT_SITES.items(), SITES, strict=True)}
    # Between rounds, the worker is idle or gone; killing it there is the same as starting it late.
    _scenario(bench, "kills-sites", targets, PHASES)


def executor_and_message(bench: Bench) -> None:
    """The coordinator's executor, and a hospital's process of one message."""
    targets = {"SuperExec": ("superexec", "site-1"), "process of a message": ("clientapp", "site-2")}
    with DeployedStudy(bench.folder / "kills-executor", bench.runs["strict"], bench.archives) as deployed:
        deployed.start()
        for phase in PHASES:
            # A process of a message lives only while there is one.
            here = dict(list(targets.items())[: 1 if phase == PHASES[3] else 2])
            _kill_in(deployed, bench.table, phase, here)
        end(bench, deployed, "all of these")


def superlink(bench: Bench) -> None:
    """The SuperLink."""
    _scenario(bench, "kills-superlink", {"SuperLink": ("superlink", "site-1")}, PHASES)


def server_app(bench: Bench) -> None:
    """The process that runs the study."""
    _scenario(bench, "kills-serverapp", {"ServerApp": ("serverapp", "site-1")}, PHASES)


def coordinator(bench: Bench) -> None:
    """The coordinator's supervisor, and with it all of the coordinator; then everything everywhere."""
    targets = {"supervisor of the coordinator": ("coordinator", "site-1")}
    with DeployedStudy(bench.folder / "kills-coordinator", bench.runs["strict"], bench.archives) as deployed:
        deployed.start()
        for phase in (PHASES[0], PHASES[1], PHASES[3]):
            _kill_in(deployed, bench.table, phase, targets)
        deployed.wait(lambda: deployed.has_plan("site-1", 3), "round 3")
        with bench.table.row("power cut everywhere", "in round 3", "the study goes on"):
            power_cut(deployed)
        _kill_in(deployed, bench.table, PHASES[4], targets)
        end(bench, deployed, "all of these")


def power_cut(deployed: DeployedStudy) -> None:
    """End every process of coordinator and hospitals at once, and start all again."""
    supervisors = [deployed.coordinator, *deployed.nodes.values()]
    everyone = [pid for each in supervisors if each.process for pid in family_of(each.process.pid)]
    for pid in everyone:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for each in supervisors:
        each.kill_supervisor()
    for each in supervisors:
        each.start()


SCENARIOS: tuple[Callable[[Bench], None], ...] = (
    at_sites,
    executor_and_message,
    superlink,
    server_app,
    coordinator,
)
