"""Commands that change what studies run: submit, amend, pause, resume, and stopping one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedcad.server.consortium import Consortium
from fedcad.server.study_folder import StudyFolder, Wanted, newest_of
from fedcad.server.study_state import STOPPED_BY_HAND
from fedcad.server.submission import CONTRACT, Submission, differences
from fedcad.server.submission import amend as amend_study
from fedcad.server.submission import submit as submit_study
from fedcad.shared.contract import Contract
from fedcad.shared.errors import ConfigError

LINEAGE = "lineage.json"
DAYS = 180
_LARGEST_LINEAGE_BYTES = 10_000

ConsortiumFolder = Annotated[Path, typer.Argument(help="The consortium's folder.", show_default=False)]
ContractFolder = Annotated[
    Path, typer.Argument(help="The contract's folder, from: fedcad study freeze.", show_default=False)
]
StudyName = Annotated[str, typer.Argument(help="Name of the study.", show_default=False)]
Days = Annotated[int, typer.Option(min=1, max=3650, help="Days until the contract ends.")]


def submit(consortium: ConsortiumFolder, contract: ContractFolder, days: Days = DAYS) -> None:
    """Sign a frozen study and start it; it waits for its sites, and the running coordinator takes it up."""
    home = Consortium.load(consortium)
    made = submit_study(home.studies, _contract(contract), _submission(home, contract, days))
    _say(made, home)


def amend(
    consortium: ConsortiumFolder,
    contract: ContractFolder,
    days: Days = DAYS,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Replace a study by a new version, which is a new contract; show what changes and ask first.

    The version before is stopped and its results stay. The new one begins with its own initial parameters; to
    go on from the model so far, freeze it with --initial.
    """
    home, frozen = Consortium.load(consortium), _contract(contract)
    before = newest_of(home.studies, frozen.study.name)
    old = Contract.load(before.path / CONTRACT)
    lines = differences(old.study, frozen.study)
    typer.echo("\n".join(lines) or "the study file is the same; networks or initial parameters differ")
    if not yes:
        typer.confirm(f"\nStop {before.title} and start this as v{before.version + 1}?", abort=True)
    _say(amend_study(home.studies, frozen, _submission(home, contract, days)), home)


def pause(
    consortium: ConsortiumFolder,
    study: StudyName,
    reason: Annotated[str, typer.Option(help="Shown to everyone who looks.")] = "",
) -> None:
    """Pause a study after the round that is going on; nothing is lost."""
    folder = newest_of(Consortium.load(consortium).studies, study)
    folder.want(Wanted.PAUSED, reason)
    typer.echo(f"{folder.title} pauses after the round that is going on. Go on: fedcad server resume")


def resume(consortium: ConsortiumFolder, study: StudyName) -> None:
    """Let a paused or stopped study go on from its last closed round."""
    folder = newest_of(Consortium.load(consortium).studies, study)
    outcome = folder.outcome()
    if outcome is not None and outcome.status == "completed":
        raise ConfigError(f"{folder.title} is finished; its model: fedcad server result")
    folder.want(Wanted.RUNNING)
    typer.echo(f"{folder.title} goes on from its last closed round")


def stop_study(home: Consortium, study: str, reason: str) -> None:
    """Stop a study after the round that is going on; what it has so far is its result."""
    folder = newest_of(home.studies, study)
    folder.want(Wanted.STOPPED, reason or STOPPED_BY_HAND)
    typer.echo(f"{folder.title} stops after the round that is going on. Its result: fedcad server result")


def _contract(folder: Path) -> Contract:
    if folder.is_file():
        raise ConfigError(
            f"{folder} is a file; expected the folder of a contract. Freeze the study first, where the "
            f"models are installed: fedcad study freeze {folder}"
        )
    return Contract.load(folder)


def _submission(home: Consortium, contract: Path, days: int) -> Submission:
    now = datetime.now(UTC)
    sites = tuple(name for name, site in home.sites(now).items() if not site.objection)
    return Submission(
        consortium=home.config.name,
        sites=sites,
        key=home.signing_key(),
        issued=now,
        days=days,
        initial_from=_lineage(contract),
    )


def _lineage(contract: Path) -> str:
    path = contract / LINEAGE
    try:
        if not path.exists():
            return ""
        with path.open("rb") as stream:
            return str(json.loads(stream.read(_LARGEST_LINEAGE_BYTES))["initial_from"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: the lineage cannot be read: {error}; freeze the study again") from error


def _say(made: StudyFolder, home: Consortium) -> None:
    facts = made.contract()
    typer.echo(f"study        {made.title}")
    typer.echo(f"study hash   {facts.study_hash}")
    typer.echo(f"rounds       {facts.rounds}, quorum {facts.quorum}, deadline {facts.deadline_s:g} s")
    typer.echo(f"folder       {made.path}")
    typer.echo(f"\nwatch it: fedcad server watch {home.folder} {made.name}")
