"""``fedcad client start``, ``stop`` and ``status``."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedcad.client.hospital import Hospital

Folder = Annotated[Path, typer.Argument(help="The site's folder.", exists=True, file_okay=False)]
_LONG_AGO_S = 120.0
_NOT_WELL = 1


def start(folder: Folder) -> None:
    """Run the hospital's node until Ctrl-C, SIGTERM or "fedcad client stop".

    It connects to the coordinator, outbound only, for ever; the training worker starts when a study asks for
    training and ends when it is idle. Nothing is lost by ending the node in whatever way; start it again.

    Raises:
        FedCADError: The folder is no site that has joined, or its node is running already.
    """
    from fedcad.client.supervisor import Node

    Node(folder, typer.echo).run()


def stop(folder: Folder) -> None:
    """Stop the node that runs in a folder, from another terminal, and wait until it has.

    Raises:
        UnsupportedError: It does not stop, or belongs to another account.
    """
    from fedcad.client.hospital import Hospital
    from fedcad.client.supervisor import LOCK_FILE
    from fedcad.shared.instance_lock import stop_holder

    holder = stop_holder(Hospital.load(folder).run / LOCK_FILE)
    typer.echo("it was not running" if holder is None else f"stopped (process {holder})")


def status(folder: Folder) -> None:
    """Tell whether the node runs and is connected; the exit code is 1 where it is not."""
    from fedcad.client.hospital import Hospital

    lines, is_well = describe(Hospital.load(folder))
    typer.echo("\n".join(lines))
    if not is_well:
        raise typer.Exit(_NOT_WELL)


def describe(hospital: "Hospital", now: float | None = None) -> tuple[list[str], bool]:
    """Return what is known of a node, in words, and whether it runs and is connected.

    Args:
        hospital: The site.
        now: Seconds since 1970; the clock's if None.
    """
    from fedcad.client.supernode import read_contact
    from fedcad.client.supervisor import LOCK_FILE, STATE_FILE
    from fedcad.shared.instance_lock import holder_of

    holder = holder_of(hospital.run / LOCK_FILE)
    if holder is None:
        return ["The node is not running. Start it: fedcad client start FOLDER"], False
    state = _read(hospital.run / STATE_FILE)
    contact = read_contact(hospital.run)
    since_s = (time.time() if now is None else now) - float(contact.get("last_contact", 0.0))
    is_connected = contact.get("state") == "connected" and since_s < _LONG_AGO_S
    lines = [
        f"The node runs (process {holder}, FedCAD {state.get('version', '?')}).",
        f"Coordinator {state.get('coordinator', '?')}: "
        + ("connected" if is_connected else f"not connected. {contact.get('reason') or 'No contact yet.'}"),
    ]
    if contact.get("state") == "connected":
        lines.append(f"Last contact {max(0.0, since_s):.0f} s ago.")
    for name, process in state.get("processes", {}).items():
        restarts = process.get("restarts", 0)
        if restarts:
            lines.append(f"{name}: restarted {restarts} ×; it {process.get('last_exit')}.")
    if state.get("problem"):
        lines.append(f"Problem: {state['problem']}")
    return lines, is_connected


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
