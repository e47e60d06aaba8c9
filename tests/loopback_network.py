"""A small Internet on the loopback interface for tests: certificates, TLS servers, and a CONNECT proxy."""

import contextlib
import datetime
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = "127.0.0.1"


class Authority:
    """A certificate authority."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        self.pem = self._sign(self._name, self._key.public_key(), is_authority=True).decode()

    def server(self, folder: Path, *names: str, days: tuple[float, float] = (-1, 1)) -> ssl.SSLContext:
        """Return the server side of TLS with a certificate for names or addresses.

        Args:
            folder: Where key and certificate are put.
            names: Names and addresses.
            days: First and last day of validity, counted from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        pem = self._sign(subject, key.public_key(), names=names, days=days)
        return server_context(folder, key, pem.decode())

    def _sign(self, subject, public, *, names=(), days=(-1, 365), is_authority=False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if is_authority:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_context(folder: Path, key: ec.EllipticCurvePrivateKey, pem: str) -> ssl.SSLContext:
    """Return the server side of TLS with a key and its certificate, put into a folder."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "server.pem"
    path.write_bytes(private + pem.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@contextlib.contextmanager
def listening(handle: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """Accept connections on a free port, each handled in a thread; yield the port."""
    with socket.create_server((LOOPBACK, port)) as server:
        server.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    client, _ = server.accept()
                    threading.Thread(target=_handled, args=(handle, client), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def _handled(handle: Callable[[socket.socket], None], client: socket.socket) -> None:
    client.settimeout(10)
    with client, contextlib.suppress(OSError):
        handle(client)


def https_server(
    context: ssl.SSLContext, *, ahead_s: float = 0.0, headers: str = "", port: int = 0
) -> contextlib.AbstractContextManager[int]:
    """Serve 404 over TLS with a Date header that is a while ahead."""

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as stream:
            stream.recv(65536)
            now = datetime.datetime.now(datetime.UTC).timestamp()
            date = formatdate(now + ahead_s, usegmt=True)
            head = f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\n{headers}Content-Length: 0\r\n\r\n"
            stream.sendall(head.encode())

    return listening(handle, port)


def connect_proxy(
    target: int, *, refuse: int | None = None, authorization: str | None = None, seen: list[str] | None = None
) -> contextlib.AbstractContextManager[int]:
    """Serve CONNECT: every name leads to a port on loopback, or is refused with an HTTP status."""

    def handle(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        request = head.decode()
        if seen is not None:
            seen.append(request)
        status = refuse
        if authorization is not None and f"Proxy-Authorization: {authorization}\r\n" not in request:
            status = 407
        if status is not None:
            client.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with socket.create_connection((LOOPBACK, target)) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(client, server)

    return listening(handle)


def _relay(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    while True:
        for stream in select.select([client, server], [], [], 10)[0]:
            content = stream.recv(65536)
            if not content:
                return
            other[stream].sendall(content)


def closed_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])
