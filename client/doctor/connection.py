"""A connection to the coordinator as the node makes it: direct, or through a proxy's CONNECT, then TLS.

Why not an HTTP library: it says that the connection failed; IT needs to know at which of five steps.
"""

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from fedcad.client.doctor.check import NotCheckable
from fedcad.shared.errors import FedCADError

TIMEOUT_S = 10.0
"""Seconds that each step of a connection may take."""
PROXY_VARIABLES = ("https_proxy", "all_proxy")
"""Variables that name the proxy of HTTPS connections, in any case, the first one set counts."""
_MOST_HEADER_BYTES = 65536
_HTTP_PORT = 80

Stage = Literal["name", "connect", "proxy address", "proxy"]


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host: Name or address.
        port: Port.
        authorization: Value of Proxy-Authorization; empty without user and password. Secret.
        source: Where it is configured, for the reader.
    """

    host: str
    port: int
    authorization: str
    source: str

    def __str__(self) -> str:
        """Return what may be shown: no user, no password."""
        return f"{join_address(self.host, self.port)} (from {self.source})"


@dataclass(frozen=True)
class Route:
    """The way to the coordinator.

    Attributes:
        host: The coordinator's public name or address.
        port: Its port.
        ca_pem: The certificate authority that the hospital enrolled with.
        proxy: None for a direct connection.
    """

    host: str
    port: int
    ca_pem: str
    proxy: Proxy | None

    @property
    def address(self) -> str:
        """The coordinator's host and port."""
        return join_address(self.host, self.port)


class Blocked(FedCADError):  # noqa: N818 - the domain's word, not an "...Error"
    """No connection was made.

    Attributes:
        stage: Which step failed.
        status: HTTP status with which a proxy refused, 0 otherwise.
    """

    def __init__(self, stage: Stage, reason: str, status: int = 0) -> None:
        """Keep the step beside the reason."""
        super().__init__(reason)
        self.stage: Stage = stage
        self.status = status


def join_address(host: str, port: int) -> str:
    """Return host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[IPv6]:port``.

    Raises:
        NotCheckable: The text is no such address.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise NotCheckable(f"the coordinator's address is no host:port: {text[:100]!r}")
    return host, port


def proxy_for(host: str, environment: Mapping[str, str], source: str = "") -> Proxy | None:
    """Return the proxy that an environment prescribes for a host; None for a direct connection.

    Args:
        host: The coordinator's name or address.
        environment: Environment of the node's processes.
        source: Where the setting comes from, if not from the environment.

    Raises:
        NotCheckable: The proxy's address cannot be read.
    """
    # As urllib and httpx do: of a variable in both cases, the lower-case one counts.
    ranked = sorted(environment, key=lambda name: (name.lower(), name.islower()))
    lowered = {name.lower(): name for name in ranked if environment[name]}
    if "no_proxy" in lowered and _is_exempt(host, environment[lowered["no_proxy"]]):
        return None
    for variable in PROXY_VARIABLES:
        if variable in lowered:
            name = lowered[variable]
            return _parse_proxy(environment[name], source or name)
    return None


def _is_exempt(host: str, exceptions: str) -> bool:
    """Whether NO_PROXY names a host, one of its parent domains, or everything."""
    for entry in exceptions.lower().split(","):
        name = entry.strip().lstrip(".")
        if name == "*" or (name and (host.lower() == name or host.lower().endswith(f".{name}"))):
            return True
    return False


def _parse_proxy(text: str, source: str) -> Proxy:
    # The text is never shown: it may hold a password.
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        host, port = parts.hostname, parts.port or _HTTP_PORT
    except ValueError:
        raise NotCheckable(f"the proxy in {source} is no address; expected http://host:port") from None
    if not host or parts.scheme not in ("", "http"):
        raise NotCheckable(f"the proxy in {source} is not of the form http://host:port, which can be tried")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(host, port, authorization, source)


def dial(host: str, port: int, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """Connect over TCP.

    Raises:
        Blocked: The name does not resolve, or nothing answers at the port.
    """
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except (socket.gaierror, UnicodeError) as error:
        raise Blocked("name", f"the name {host} does not resolve") from error
    except TimeoutError as error:
        raise Blocked("connect", f"no answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise Blocked("connect", (error.strerror or str(error)).lower()) from error


def open_tunnel(route: Route, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """Return a connection to the coordinator's port, through the proxy if there is one.

    Raises:
        Blocked: At which step, and why.
    """
    if route.proxy is None:
        return dial(route.host, route.port, timeout_s)
    try:
        stream = dial(route.proxy.host, route.proxy.port, timeout_s)
    except Blocked as error:
        raise Blocked("proxy address", str(error)) from error
    try:
        _connect(stream, route)
    except BaseException:
        stream.close()
        raise
    return stream


def _connect(stream: socket.socket, route: Route) -> None:
    """Ask the proxy for a tunnel (RFC 9110 section 9.3.6)."""
    if route.proxy is None:
        return
    lines = [f"CONNECT {route.address} HTTP/1.1", f"Host: {route.address}"]
    if route.proxy.authorization:
        lines.append(f"Proxy-Authorization: {route.proxy.authorization}")
    try:
        stream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        first = _read_head(stream).split(b"\r\n", 1)[0].decode("latin-1")
    except OSError as error:
        raise Blocked("proxy", f"broke off ({type(error).__name__})") from error
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if not 200 <= status < 300:
        refusal = f"refuses the connection (HTTP {status})" if status else "does not answer as a proxy"
        raise Blocked("proxy", refusal, status)


def _read_head(stream: socket.socket) -> bytes:
    """Read an answer's head byte by byte: what follows it belongs to TLS."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < _MOST_HEADER_BYTES:
        byte = stream.recv(1)
        if not byte:
            break
        head += byte
    return head


@dataclass(frozen=True)
class Answer:
    """What the coordinator's port said.

    Attributes:
        problem: Why its certificate is not accepted; None: it is.
        certificate: What it presented, DER.
        headers: Headers of its HTTP answer by lower-case name; empty where it gave none.
        received: When the answer came, Unix seconds by this machine's clock.
    """

    problem: ssl.SSLCertVerificationError | None
    certificate: bytes
    headers: Mapping[str, str]
    received: float


def ask(route: Route, *, now: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S) -> Answer:
    """Connect, shake hands and ask for ``/``; where the certificate is refused, look at it all the same.

    Nothing secret is sent, so an answer from a stranger does no harm; it only helps to name the stranger.

    Raises:
        Blocked: No connection was made.
        ssl.SSLError: What answers does not speak TLS, or broke off.
    """
    try:
        certificate, headers = _exchange(route, _trusting(route), timeout_s)
    except ssl.SSLCertVerificationError as error:
        certificate, headers = _exchange(route, _seeing_all(), timeout_s)
        return Answer(error, certificate, headers, now())
    return Answer(None, certificate, headers, now())


def _trusting(route: Route) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=route.ca_pem)
    except ssl.SSLError as error:
        raise NotCheckable("the enrolment's certificate authority cannot be read") from error


def _seeing_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _exchange(route: Route, context: ssl.SSLContext, timeout_s: float) -> tuple[bytes, dict[str, str]]:
    """Return the certificate presented and the headers of the answer."""
    with (
        open_tunnel(route, timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=route.host) as stream,
    ):
        return stream.getpeercert(binary_form=True) or b"", _headers(stream, route)


def _headers(stream: ssl.SSLSocket, route: Route) -> dict[str, str]:
    """Return the headers of the answer to a request; none where there is no proper answer."""
    request = f"GET / HTTP/1.1\r\nHost: {route.address}\r\nConnection: close\r\n\r\n"
    try:
        stream.sendall(request.encode("latin-1"))
        response = http.client.HTTPResponse(stream)
        response.begin()
        return {name.lower(): value for name, value in response.getheaders()}
    except (OSError, http.client.HTTPException):
        return {}
