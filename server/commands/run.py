"""``fedcad server start`` and ``fedcad server stop``."""

from pathlib import Path
from typing import Annotated

import typer

from fedcad.server.consortium import Consortium

Folder = Annotated[Path, typer.Argument(help="The consortium's folder.", exists=True, file_okay=False)]


def start(folder: Folder) -> None:
    """Run the coordinator until Ctrl-C, SIGTERM or "fedcad server stop".

    Starts the SuperLink and its executor, keeps them alive, and goes on with every study that is wanted
    running, from its last closed round. Nothing is lost by ending it in whatever way; start it again.

    Raises:
        FedCADError: The folder is no consortium, or its coordinator is running already.
    """
    from fedcad.server.supervisor import Coordinator

    Coordinator(folder, typer.echo).run()


def stop(
    folder: Folder,
    study: Annotated[str | None, typer.Argument(help="Stop this study only.")] = None,
    reason: Annotated[str, typer.Option(help="Why a study is stopped; shown to everyone who looks.")] = "",
) -> None:
    """Stop the coordinator that runs in a folder, or one study of it.

    A coordinator is stopped from another terminal; studies go on where they were once it is started again. A
    study that is stopped ends after the round that is going on, with what it has as its result.

    Raises:
        UnsupportedError: The coordinator does not stop, or belongs to another account.
        CheckpointError: There is no such study.
    """
    consortium = Consortium.load(folder)
    if study is not None:
        from fedcad.server.commands.studies import stop_study

        stop_study(consortium, study, reason)
        return
    from fedcad.server.supervisor import LOCK_FILE
    from fedcad.shared.instance_lock import stop_holder

    holder = stop_holder(consortium.run / LOCK_FILE)
    typer.echo("it was not running" if holder is None else f"stopped (process {holder})")
