"""The commands ``fedcad server init``, ``backup`` and ``restore``."""

from pathlib import Path
from typing import Annotated

import typer

from fedcad.server.consortium import AUTHORITY_DAYS, CONFIG, Consortium, make_config
from fedcad.shared.dialogue import to_read_out

_MB = 1e6


def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
    name: Annotated[
        str, typer.Option(help="Short name of the consortium, such as chest-xray-north.", show_default=False)
    ],
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the hospitals reach this machine, such as fedcad.example.org:8443.",
            show_default=False,
        ),
    ],
) -> None:
    """Make a consortium: its folder with settings, keys and certificates.

    Nothing is ever overwritten. The keys are readable by this account only, and leave this machine in a
    backup alone: keep it as safe as them.
    """
    consortium = Consortium.create(folder, make_config(name, address))
    ends = consortium.listener_certificate().not_valid_after_utc
    typer.echo(f"made the consortium {name} in {folder}\n")
    rows = {
        CONFIG: "settings, with comments",
        "keys/": "private keys, for this account only",
        "ca.crt": f"certificate of the consortium's authority ({AUTHORITY_DAYS // 365} years)",
        "server.crt": f"certificate of this server for {address}, until {ends:%Y-%m-%d}",
        "signing.pub": "public key with which studies are signed",
        "sites/, studies/": "empty so far",
    }
    typer.echo("\n".join(f"  {file:<18}{what}" for file, what in rows.items()))
    typer.echo("\nfingerprint of the authority, to be read out to every hospital by telephone:")
    typer.echo(to_read_out(consortium.fingerprint))
    typer.echo(
        f"\nnext: ask each hospital for its request.json (fedcad client request), then: "
        f"fedcad server enrol {folder} request.json"
    )


def backup(
    folder: Annotated[Path, typer.Argument(help="The consortium's folder.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The backup to be made (.tar).", show_default=False)],
) -> None:
    """Save everything into one file: settings, keys and authority included, sites, studies, database.

    The coordinator may be running. The file is readable by this account only; who has it, is the coordinator.
    """
    from fedcad.server.backup import back_up

    saved = back_up(Consortium.load(folder), file)
    typer.echo(f"saved {saved.files} files, {saved.bytes / _MB:,.1f} MB, of {saved.consortium} in {file}")
    typer.echo("It holds the private keys: keep it under lock, and not on this machine alone.")
    typer.echo(f"\nto restore it: fedcad server restore {file} NEW-FOLDER")


def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
) -> None:
    """Make the folder of a consortium anew from a backup, after checking all of it.

    Enrolled hospitals need to do nothing, if this machine has the same address. Studies that were running go
    on from the round that the backup holds, as soon as the coordinator starts.
    """
    from fedcad.server.restoration import restore as restore_backup

    saved = restore_backup(file, folder)
    consortium = Consortium.load(folder)
    typer.echo(
        f"restored {saved.files} files, {saved.bytes / _MB:,.1f} MB, of {saved.consortium} in {folder}, "
        f"as of {saved.made}"
    )
    typer.echo(f"{len(consortium.sites())} sites; address {consortium.config.address}")
    typer.echo("\nmake sure that the coordinator from which the backup came is off; never run both")
    typer.echo(f"next: fedcad server start {folder}")
