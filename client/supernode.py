"""The hospital's node: ``python -m fedcad.client.supernode FOLDER``.

It asks the coordinator for work, outbound only, and accepts work in one form: runs of the bundle of this
version of FedCAD, which holds no code. What it knows about the connection it writes into ``contact.json``,
for the supervisor and for people.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcad.client.hospital import Hospital
from fedcad.shared.bundle import bundle, bundle_hash
from fedcad.shared.errors import FedCADError
from fedcad.shared.supervision import die_with_supervisor
from fedcad.shared.version import __version__

if TYPE_CHECKING:
    import httpx

CONTACT_FILE = "contact.json"
WORKER_SOCKET_KEY = "worker-socket"
"""As the Flower app of :mod:`fedcad.client.app` reads it; a test holds them together."""
ACTIVE_SECONDS = 1.0
IDLE_SECONDS = 4.0
"""Below the 5 s after which flwr's client closes an idle connection: no TLS handshake for each question."""
_STAYS_ACTIVE_S = 600.0
_PRIVATE_UMASK = 0o077
_SPARE_BYTES = 64 * 2**20
"""For what travels beside arrays: a contract, and what describes the message."""
_DEACTIVATE = "DeactivateNode"
_SERVER_ERROR = 500
_WORDS_OF_STATUS = {
    401: "the coordinator does not accept this site's identity: it is not enrolled yet, was revoked, or this "
    "machine's clock is more than five minutes off",
    404: "what answers at the coordinator's address is not a FedCAD coordinator; check the address",
    407: "the web proxy asks for a user name; ask your network department",
    412: "the coordinator does not let this site in: it is not enrolled yet, was revoked, or still counts "
    "as connected, which ends within a minute. If it stays, ask the coordinator; a copy of this folder on "
    "another machine has the same effect",
    413: "the coordinator, or a proxy before it, refuses messages of this size",
}


@dataclass(frozen=True)
class NodePlaces:
    """Where a node connects and what it reads.

    Attributes:
        address: Coordinator, ``host:port``.
        ca_certificate: Certificate of the consortium's CA, PEM.
        private_key: The node's key, OpenSSH.
        run_folder: Folder for ``contact.json``; private.
        worker_socket: Socket of the training worker, which the process of a message must find.
        largest_payload: Most bytes of the arrays of a message.
    """

    address: str
    ca_certificate: Path
    private_key: Path
    run_folder: Path
    worker_socket: Path
    largest_payload: int


class Contact:
    """What the node knows about its connection; writes ``contact.json`` when that changes.

    The file's time of change is the time of the last contact: an idle node writes no data.
    """

    def __init__(
        self, folder: Path, machine: str, accepted: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep the file in a folder.

        Args:
            folder: Where the file is.
            machine: What tells this machine from others, for :attr:`previous_node_id`.
            accepted: Hash of the only bundle that is accepted.
            clock: Seconds that never go back.
        """
        self._path = folder / CONTACT_FILE
        self._machine = machine
        self._accepted = accepted
        self._clock = clock
        self._last_message: float | None = None
        earlier = _read(self._path)
        is_same = earlier.get("machine") == machine
        node_id = earlier.get("node_id")
        self.previous_node_id = node_id if is_same and isinstance(node_id, int) else None
        self._state = {"state": "connecting", "reason": "", "machine": machine, "node_id": node_id}

    def connected(self, node_id: int) -> None:
        """Note that the coordinator accepted this node."""
        self._change(state="connected", reason="", node_id=node_id, machine=self._machine)

    def contact(self, *, has_message: bool) -> None:
        """Note that the coordinator answered."""
        if has_message:
            self._last_message = self._clock()
        self._change(state="connected", reason="")
        if self._path.exists():
            os.utime(self._path)

    def trouble(self, error: "httpx.TransportError | None", status: int, call: str) -> None:
        """Note why a call failed. A refused push or pull of one message is not a state of the connection."""
        is_farewell = _DEACTIVATE in call
        if not is_farewell and (error is not None or status in _WORDS_OF_STATUS or status >= _SERVER_ERROR):
            self._change(state="not connected", reason=explain_trouble(error, status))

    def refused(self, app: str, bundle_hash: str) -> str:
        """Note that a run was refused; return what the coordinator is told."""
        reason = (
            f"this site runs only the bundle {self._accepted[:16]} of FedCAD {__version__}; "
            f"it refused {app}, bundle {bundle_hash[:16]}"
        )
        _say("WARNING", reason)
        return reason

    def idle_seconds(self) -> float:
        """Ask often while a study is going on, seldom otherwise."""
        last = self._last_message
        return ACTIVE_SECONDS if last is not None and self._clock() - last < _STAYS_ACTIVE_S else IDLE_SECONDS

    def _change(self, **changes: Any) -> None:
        state = self._state | changes
        if state == self._state and self._path.exists():
            return
        self._state = state
        _say("INFO", f"{state['state']}: {state['reason']}" if state["reason"] else str(state["state"]))
        temporary = self._path.with_suffix(".new")
        # No fsync: after a power cut nobody asks for the state before it.
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._path)


def explain_trouble(error: "httpx.TransportError | None", status: int) -> str:
    """Return in plain words why a call to the coordinator failed, and what helps."""
    if error is None:
        return _WORDS_OF_STATUS.get(status, f"the coordinator is in trouble (HTTP status {status})")
    text, kind = str(error).lower(), type(error).__name__
    if "certificate verify failed" in text:
        return (
            "what answers is not certified by this consortium: a proxy inspects TLS, the address is another "
            f"server's, or the certificate has expired ({str(error)[-120:]})"
        )
    if kind == "ProxyError":
        return f"the web proxy refuses the connection ({str(error)[:120]}); ask your network department"
    if "name or service not known" in text or "name resolution" in text:
        return "the coordinator's name is not known to this machine's DNS"
    if "refused" in text:
        return "nothing listens at the coordinator's address, or a firewall refuses it"
    if "timeout" in kind.lower() or "timed out" in text:
        return "the coordinator does not answer in time: no network, a firewall that drops, or overload"
    return f"the connection broke ({kind}: {str(error)[:120]})"


def read_contact(folder: Path) -> dict[str, Any]:
    """Return what a node last wrote, with ``last_contact`` in seconds since 1970; empty if it never did."""
    path = folder / CONTACT_FILE
    found = _read(path)
    if found:
        found["last_contact"] = path.stat().st_mtime
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def this_machine() -> str:
    """Return what tells this machine from another one to which the site's folder might have been copied."""
    identity = Path("/etc/machine-id")
    return f"{os.uname().nodename} {identity.read_text().strip() if identity.is_file() else ''}".strip()


def _say(level: str, text: str) -> None:
    sys.stdout.write(f"{level} {text}\n")
    sys.stdout.flush()


def serve(places: NodePlaces, content: bytes, content_hash: str) -> None:
    """Be a node until a signal ends this process, or the coordinator refuses it.

    Args:
        places: Address and files.
        content: The only bundle that is accepted.
        content_hash: Its hash.

    Raises:
        OSError: A file cannot be read.
    """
    from fedcad.shared.flower_internals.node import NodeSettings, serve_node

    os.umask(_PRIVATE_UMASK)
    contact = Contact(places.run_folder, this_machine(), content_hash)
    settings = NodeSettings(
        address=places.address,
        root_certificates=places.ca_certificate.read_bytes(),
        private_key=places.private_key,
        bundle=content,
        bundle_hash=content_hash,
        node_config={WORKER_SOCKET_KEY: str(places.worker_socket)},
        largest_bytes=places.largest_payload + _SPARE_BYTES,
        previous_node_id=contact.previous_node_id,
    )
    serve_node(settings, contact)


def main(folder: Path) -> None:
    """Be the node of a site's folder."""
    die_with_supervisor()
    hospital = Hospital.load(folder)
    places = NodePlaces(
        address=hospital.enrolment().address,
        ca_certificate=hospital.ca_certificate,
        private_key=hospital.node_key_file,
        run_folder=hospital.run,
        worker_socket=hospital.socket,
        largest_payload=hospital.site.largest_payload_mb * 10**6,
    )
    serve(places, bundle(), bundle_hash())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except FedCADError as error:
        _say("ERROR", str(error))
        sys.exit(1)
