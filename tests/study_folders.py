"""Consortia with studies in every state, made by real runs, for tests of what looks at them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study_factory import DirectChannel, make_contract, make_run, make_sites

from fedcad.server.channel import Lost
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.live import LiveState
from fedcad.server.outcome import write_outcome
from fedcad.server.settings import RunSettings
from fedcad.server.study_folder import StudyFolder, Wanted
from fedcad.server.submission import Submission, submit
from fedcad.shared.contract import Contract

NOW = 1_900_000_000.0
ISSUED = datetime.fromtimestamp(NOW - 3600.0, UTC)
SITES = ("a", "b", "c")


def make_consortium(root: Path, name: str = "chest-network") -> Consortium:
    """Make a consortium's folder without sites, an hour before now."""
    return Consortium.create(root / "consortium", make_config(name, "fedcad.example.org:8443"), now=ISSUED)


def add_study(
    home: Consortium, name: str = "small", *, sites: Sequence[str] = SITES, days: int = 180, **changes: Any
) -> StudyFolder:
    """Submit a real study, wanted running."""
    contract = make_contract(name=name, **changes)
    submission = Submission(home.config.name, tuple(sites), home.signing_key(), ISSUED, days)
    return submit(home.studies, contract, submission)


def run_rounds(
    folder: StudyFolder,
    *,
    lost: Mapping[tuple[str, int], Lost] | None = None,
    stop_in: int | None = None,
) -> None:
    """Run a submitted study with real sites, to its end or until it is killed within a round."""
    contract = Contract.load(folder.path / "contract")
    names = RunSettings.load(folder.path).sites
    mischief = {place: lambda _plan, _update, gone=gone: gone for place, gone in (lost or {}).items()}
    channel = DirectChannel(make_sites(contract, *names), mischief, stop_in=stop_in)
    live = LiveState(folder.path / "live.json", lambda: NOW - 5.0, rounds=contract.study.rounds)
    for name in names:
        live.contact(name, "ready", "0.1.0")
    try:
        checkpoint = make_run(folder.path, contract, channel, live.observe).run()
    except Exception as error:
        if type(error).__name__ != "Stopped":
            raise
    else:
        write_outcome(folder.path, checkpoint, contract.layout)
    finally:
        live.close()


def wait_for(folder: StudyFolder, reason: str, sites: Sequence[str], until: float) -> None:
    """Let a study say that it waits."""
    live = LiveState(folder.path / "live.json", lambda: NOW - 60.0, rounds=3)
    live.contact("a", "ready", "0.1.0")
    live.waiting(reason, sites, until)
    live.close()


def say_running(home: Consortium, **changes: Any) -> None:
    """Write the state of a coordinator that has been running for two hours."""
    started = datetime.fromtimestamp(NOW - 7300.0, UTC).isoformat(timespec="seconds")
    processes = {name: {"state": "running"} for name in ("superlink", "superexec")}
    plain = {"pid": 4321, "started": started, "problem": "", "processes": processes, "runs": {}}
    (home.run / "supervisor.json").write_text(json.dumps(plain | changes))
    (home.run / "supervisor.lock").touch()


__all__ = [
    "ISSUED",
    "NOW",
    "SITES",
    "Lost",
    "Wanted",
    "add_study",
    "make_consortium",
    "run_rounds",
    "say_running",
    "wait_for",
]
