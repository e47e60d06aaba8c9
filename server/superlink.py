"""The coordinator's SuperLink: ``python -m fedcad.server.superlink FOLDER``.

flwr serves three APIs on one port: Fleet, which every node must reach, and Control and Runtime, through which
whoever reaches them can start code. Without user accounts in flwr, anyone who can open the port could. Here
one process listens twice: on the public address only paths of the Fleet API exist, everything else is 404;
all of it exists on a port that is bound to loopback. That port every account of this machine can open, and
whoever may start a run runs code as the coordinator, whose keys it can then read: so only who can read the
executor's secret is answered there.
"""

import asyncio
import hmac
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcad.server.consortium import Consortium
from fedcad.server.flower_control import CONTROL_HEADER, control_token
from fedcad.shared.errors import FedCADError, UnsupportedError
from fedcad.shared.secret_files import read_secret
from fedcad.shared.supervision import die_with_supervisor
from fedcad.shared.version import __version__

FLEET_PATHS = "/v1/fleet/"
RUNTIME_PATHS = "/v1/runtime/"
"""flwr itself asks each caller for the executor's secret, or for the token of its task."""
LOOPBACK = "127.0.0.1"
LARGEST_BODY_BYTES = 32 * 2**20
"""flwr's messages travel in pieces of at most 5 MB; without a limit, flwr reads any body whole."""
_PRIVATE_UMASK = 0o077
_KEEP_ALIVE_S = 75
_SHUTDOWN_S = 3
_BACKLOG = 1024
_LONGEST_SIZE = 12

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class SuperLinkPlaces:
    """Where a SuperLink listens and what it reads.

    Attributes:
        listen: Public ``host:port``.
        control_port: Port on loopback for everything else; 0 takes a free one.
        database: SQLite file; made with mode 0600.
        certificate: Server certificate, PEM; names the public host, ``localhost`` and 127.0.0.1.
        key: Its private key.
        ca_certificate: Certificate of the consortium's CA.
        executor_secret: File of the secret that the executor must know.
    """

    listen: str
    control_port: int
    database: Path
    certificate: Path
    key: Path
    ca_certificate: Path
    executor_secret: Path

    @classmethod
    def of(cls, consortium: Consortium) -> "SuperLinkPlaces":
        """Return the places of a consortium."""
        return cls(
            listen=consortium.config.listen,
            control_port=consortium.config.control_port,
            database=consortium.database,
            certificate=consortium.server_certificate,
            key=consortium.keys / "server.key",
            ca_certificate=consortium.ca_certificate,
            executor_secret=consortium.executor_secret,
        )

    def arguments(self) -> list[str]:
        """Return the arguments of flwr's SuperLink; all of them may be read by everyone on the machine."""
        return [
            *("--host", LOOPBACK, "--port", str(max(1, self.control_port))),
            *("--database", str(self.database)),
            *("--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)),
            *("--ssl-ca-certfile", str(self.ca_certificate)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.executor_secret)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        ]


def fence(application: Application, control_port: int, token: str) -> Application:
    """Return an application of which the public sees only the Fleet API, in bodies of bounded size.

    Args:
        application: The whole of it.
        token: What a caller of the loopback port must send along, but for the Runtime API.
        control_port: Port on loopback on which all of it is served; whatever comes through another socket is
            the public. The port is the kernel's, not the request's.
    """

    async def fenced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await application(scope, receive, send)
        elif scope.get("server") == (LOOPBACK, control_port):
            if scope["type"] == "http" and _is_ours(scope, token):
                await application(scope, receive, send)
            else:
                await _answer(send, 401)
        elif scope["type"] != "http" or not is_fleet_path(scope["path"]):
            await _answer(send, 404)
        elif _declared_size(scope) > LARGEST_BODY_BYTES:
            await _answer(send, 413)
        else:
            await application(scope, _bounded(receive), send)

    return fenced


def is_fleet_path(path: str) -> bool:
    """Whether a path belongs to the Fleet API, however it is written."""
    return path.startswith(FLEET_PATHS) and ".." not in path and "//" not in path


def _is_ours(scope: Scope, token: str) -> bool:
    """Whether a request on loopback comes from this coordinator, or goes where flwr asks for itself."""
    if scope["path"].startswith(RUNTIME_PATHS) and ".." not in scope["path"]:
        return True
    sent = [value for name, value in scope.get("headers", ()) if name == CONTROL_HEADER.encode()]
    return len(sent) == 1 and hmac.compare_digest(sent[0], token.encode())


async def _answer(send: Send, status: int) -> None:
    # The version is no secret: a hospital's doctor compares it with its own before a study does.
    headers = [(b"content-length", b"0"), (b"fedcad-version", __version__.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _declared_size(scope: Scope) -> int:
    for name, value in scope.get("headers", ()):
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < _LONGEST_SIZE else LARGEST_BODY_BYTES + 1
    return 0


def _bounded(receive: Receive) -> Receive:
    """Return a receiver that hangs up on a body that grows too large; it may not have said its size."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return {"type": "http.disconnect"} if received > LARGEST_BODY_BYTES else message

    return bounded


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def serve(
    places: SuperLinkPlaces, ready: Callable[[int, int], None] = lambda _public, _control: None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        places: Addresses and files.
        ready: Told the public and the control port once both are bound.

    Raises:
        UnsupportedError: An address cannot be used.
        IdentityError: The executor's secret cannot be read, or others can read it.
    """
    import uvicorn

    from fedcad.shared.flower_internals.superlink import log_settings, superlink_application

    # The database and the files that SQLite puts beside it are made by flwr, readable by all by default.
    os.umask(_PRIVATE_UMASK)
    control = _bind(LOOPBACK, places.control_port)
    public = _bind(*split_address(places.listen))
    control_port = control.getsockname()[1]
    if ready is not None:
        ready(public.getsockname()[1], control_port)
    token = control_token(read_secret(places.executor_secret, "the executor's secret"))
    server = uvicorn.Server(
        uvicorn.Config(
            fence(superlink_application(places.arguments()), control_port, token),
            access_log=True,
            log_config=log_settings(),
            proxy_headers=False,
            server_header=False,
            ssl_certfile=str(places.certificate),
            ssl_keyfile=str(places.key),
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
    )
    asyncio.run(server.serve(sockets=[control, public]))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise UnsupportedError(
            f"{host}:{port} of this machine cannot be used ({error.strerror}); stop what listens there, "
            "or set another port in consortium.yaml"
        ) from error
    bound.set_inheritable(False)
    return bound


def main(folder: Path) -> None:
    """Serve the consortium of a folder."""
    die_with_supervisor()
    try:
        serve(SuperLinkPlaces.of(Consortium.load(folder)))
    except FedCADError as error:
        # The supervisor shows the last line of this level; a traceback would say nothing to a person.
        sys.exit(f"ERROR {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
