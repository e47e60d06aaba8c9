"""The commands ``fedcad client init``, ``request`` and ``join``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedcad.client.enrolment import examine, install, is_known_authority, join_checked, put_keys_aside
from fedcad.client.enrolment import request as make_request
from fedcad.client.hospital import Hospital
from fedcad.client.site_file import make_site, make_site_config
from fedcad.shared.dialogue import ask, ask_yes, to_read_out

Folder = Annotated[Path, typer.Argument(help="The hospital node's folder.", show_default=False)]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the node; made if absent.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the hospital in the consortium, such as north.", show_default=False),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Folder of DICOM files; only ever read.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table of labels (CSV), as the RIS exports it.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for index and caches. Default: FOLDER/state.", show_default=False),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(help="Web proxy, http://host:port. Default: the system's.", show_default=False),
    ] = None,
) -> None:
    """Make a hospital node's folder and its site.yaml; asks for what is not given.

    Nothing is ever overwritten, and nothing is sent anywhere.
    """
    answers = {
        "name": name or ask("Name of the hospital in the consortium (a-z 0-9 . _ -)", "--name"),
        "archive": _absolute(archive or Path(ask("Folder of DICOM files (only ever read)", "--archive"))),
        "labels": _absolute(labels or Path(ask("Table of labels (CSV)", "--labels"))),
        "state": "state" if state is None else _absolute(state),
    }
    if proxy is not None:
        answers["proxy"] = proxy
    make_site(folder, make_site_config(answers))
    typer.echo(f"made {folder / 'site.yaml'}; read it through once")
    for key, path in (("archive", Path(answers["archive"])), ("labels", Path(answers["labels"]))):
        if not path.exists():
            typer.echo(f"note: {key}: {path} does not exist yet")
    typer.echo(f"\nnext: fedcad client request {folder}")


def request(
    folder: Folder,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Make new keys; the present ones are kept aside.")
    ] = False,
) -> None:
    """Make the site's keys, once, and its request to the coordinator.

    The private keys stay in this folder, for this account only. The request holds no secret: send it by mail.
    Given again, the command shows the same request and fingerprint.
    """
    hospital = Hospital.load(folder)
    if new_keys:
        aside = put_keys_aside(hospital, datetime.now(UTC))
        typer.echo("there were no keys yet" if aside is None else f"the old keys are kept in {aside}")
    made = make_request(hospital)
    typer.echo(f"request of {made.site}: {folder / hospital.request_file.name}\n")
    typer.echo("fingerprint, to be read out to the coordinator by telephone:")
    typer.echo(to_read_out(made.fingerprint))
    typer.echo(
        f"\nnext: send {hospital.request_file.name} to the coordinator, who returns a file "
        f"enrolment-{made.site}.json; then:\n  fedcad client join {folder} enrolment-{made.site}.json"
    )


def join(
    folder: Folder,
    enrolment: Annotated[
        Path, typer.Argument(help="The file that the coordinator returned.", show_default=False)
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The consortium's fingerprint as the coordinator read it out; else it is asked for.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Install what the coordinator returned, after checking that all of it is genuine and for this site.

    A renewal of the same consortium needs no fingerprint again. A file that does not verify changes nothing.
    """
    hospital = Hospital.load(folder)
    offered, facts = examine(hospital, enrolment)
    typer.echo(f"consortium   {offered.consortium}, at {offered.address}")
    typer.echo(f"site         {offered.site}, until {facts.expires:%Y-%m-%d}")
    typer.echo(f"fingerprint\n{to_read_out(offered.authority_fingerprint)}")
    if fingerprint is not None:
        join_checked(hospital, offered, fingerprint)
    elif is_known_authority(hospital, offered):
        typer.echo("  (the same authority as before)")
        install(hospital, offered)
    else:
        ask_yes(
            "Did the coordinator read out exactly this fingerprint by telephone?",
            otherwise="give --fingerprint.",
        )
        install(hospital, offered)
    typer.echo(f"\n{offered.site} has joined {offered.consortium}")
    typer.echo(_after_joining(hospital, folder))


def _after_joining(hospital: Hospital, folder: Path) -> str:
    """Return what comes next: a node that runs goes on with what it read at its start."""
    from fedcad.client.supervisor import LOCK_FILE
    from fedcad.shared.instance_lock import holder_of

    if holder_of(hospital.run / LOCK_FILE) is None:
        return f"next: fedcad client doctor {folder}, then: fedcad client start {folder}"
    return (
        "next: the node is running with what it had before; restart it: "
        f"fedcad client stop {folder}, then fedcad client start {folder} (a service: systemctl restart)"
    )


def _absolute(path: Path) -> str:
    """Return a path that means the same from every folder: site.yaml's are relative to itself."""
    return str(path.expanduser().absolute())
