"""From the hospital to the coordinator: name, proxy, port, TLS, clock. Each step says who must act."""

import re
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from cryptography import x509

from fedcad.client.doctor.check import Check, Finding, NotCheckable, failed, ok, warning
from fedcad.client.doctor.connection import Answer, Blocked, Route, ask, open_tunnel
from fedcad.client.doctor.remembered import Remembered
from fedcad.shared.version import __version__

GROUP = "Network"
SKEW_WARNING_S = 60.0
SKEW_FAILED_S = 300.0
"""A node signs the time with its requests; the coordinator refuses what is some 5 minutes off."""
VERSION_HEADER = "fedcad-version"
"""Header in which a coordinator may say its version."""
_LONGEST_NAME = 200
_EXPIRED, _NOT_YET_VALID, _HOSTNAME, _ADDRESS = 10, 9, 62, 64
"""Verification results of OpenSSL, X509_V_ERR_…"""


class Network:
    """The checks of one route, which share one conversation with the coordinator."""

    def __init__(self, route: Callable[[], Route], now: Callable[[], float] = time.time) -> None:
        """Take how the route is found, which may raise, and a clock."""
        self._route = route
        self._now = now
        self._reached = Remembered(lambda: open_tunnel(route()).close())
        self._asked = Remembered(lambda: ask(route(), now=now))

    def checks(self) -> tuple[Check, ...]:
        """Return the checks in the order in which a connection is made."""
        return (
            Check(GROUP, "proxy", lambda _: self.proxy()),
            Check(GROUP, "name (DNS)", lambda _: self.name()),
            Check(GROUP, "port", lambda _: self.port()),
            Check(GROUP, "TLS", lambda _: self.tls()),
            Check(GROUP, "clock", lambda _: self.clock()),
            Check(GROUP, "version", lambda _: self.version()),
        )

    def proxy(self) -> Finding:
        """Whether the proxy is reachable and lets the node through."""
        route = self._route()
        if route.proxy is None:
            return ok("none: the node connects directly")
        try:
            self._reached()
        except Blocked as error:
            return failed(f"{route.proxy}: {error}", _proxy_remedy(error, route))
        return ok(f"{route.proxy} lets the node through")

    def name(self) -> Finding:
        """Whether the coordinator's name resolves here; behind a proxy it need not."""
        route = self._route()
        if route.proxy is not None:
            return ok(f"not needed here: the proxy resolves {route.host}")
        try:
            socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            return failed(
                f"the coordinator's name {route.host} does not resolve",
                f"Have your DNS server answer for it (try: getent hosts {route.host}), and ask the "
                "coordinator whether the name is right.",
            )
        return ok(f"{route.host} resolves")

    def port(self) -> Finding:
        """Whether the coordinator's port can be reached."""
        route = self._route()
        try:
            self._reached()
        except Blocked as error:
            if error.stage != "connect":
                raise NotCheckable(f"see '{'name (DNS)' if error.stage == 'name' else 'proxy'}'") from error
            return failed(
                f"{route.address}: {error}",
                f"Allow outgoing TCP to {route.address} in the firewall (nothing has to come in). If it is "
                "allowed, ask the coordinator whether its server is up.",
            )
        return ok(f"{route.address} is reached")

    def tls(self) -> Finding:
        """Whether what answers at the port is the coordinator that the hospital enrolled with."""
        route = self._route()
        try:
            answer = self._answer()
        except OSError as error:
            reason = (error.reason if isinstance(error, ssl.SSLError) else None) or type(error).__name__
            return failed(
                f"what answers at {route.address} does not complete a TLS connection ({reason})",
                "Ask whether a firewall or proxy takes TLS connections apart, and have the coordinator's "
                "address exempted. Else ask the coordinator whether this is its port.",
            )
        if answer.problem is None:
            return ok("the coordinator's own certificate is presented; nobody reads along")
        return _explain(answer, answer.problem, route)

    def clock(self) -> Finding:
        """Whether this machine's clock agrees with the coordinator's."""
        try:
            answer = self._answer()
        except OSError as error:
            raise NotCheckable("see 'TLS'") from error
        there = _seconds(answer.headers.get("date", ""))
        if there is None:
            return warning(
                "what answers does not say what time it is",
                "Make sure that this machine keeps its clock by NTP: timedatectl status",
            )
        return _compare(answer.received - there, verified=answer.problem is None)

    def version(self) -> Finding:
        """Whether the coordinator runs the same version, as far as it says so."""
        try:
            answer = self._answer()
        except OSError as error:
            raise NotCheckable("see 'TLS'") from error
        there = answer.headers.get(VERSION_HEADER, "")
        if answer.problem is not None or not re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", there):
            raise NotCheckable("the coordinator does not say; a study of another version is refused")
        if there != __version__:
            return failed(
                f"the coordinator has FedCAD {there}, this is {__version__}",
                f"Install the coordinator's version: pip install 'fedcad[client]=={there}'",
            )
        return ok(f"the coordinator has FedCAD {there} too")

    def _answer(self) -> Answer:
        """Return the coordinator's answer; TLS failures are raised as OSError."""
        try:
            self._reached()
            return self._asked()
        except Blocked as error:
            raise NotCheckable("the coordinator is not reached") from error


def _compare(skew: float, *, verified: bool) -> Finding:
    """Judge how far this clock is ahead of the coordinator's, in seconds."""
    told = "the coordinator's" if verified else "what the (unverified) server says"
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {told}"
    remedy = "Set the clock by NTP: timedatectl set-ntp true. If it is right, tell the coordinator."
    if abs(skew) > SKEW_FAILED_S:
        return failed(f"{found}; messages would be refused", remedy)
    return warning(found, remedy) if abs(skew) > SKEW_WARNING_S else ok(f"agrees with {told}")


def _proxy_remedy(error: Blocked, route: Route) -> str:
    if error.stage != "proxy":
        return "Check the proxy's address, and that this machine may reach it."
    if not error.status:
        return "Check the proxy's address and port: what answers there is no HTTP proxy."
    if error.status == 407:
        return (
            "The proxy wants a user and a password. Have this machine exempted, or start the node with "
            "HTTPS_PROXY=http://user:password@host:port in its environment, and no proxy in site.yaml."
        )
    if error.status in (502, 503, 504):
        return (
            f"The proxy itself does not reach {route.address}: ask its administrator, then the coordinator."
        )
    return f"Have the proxy's administrator allow CONNECT to {route.address}, without TLS inspection."


def _explain(answer: Answer, problem: ssl.SSLCertVerificationError, route: Route) -> Finding:
    """Say why a certificate was refused, and whose it is."""
    if problem.verify_code in (_EXPIRED, _NOT_YET_VALID):
        when = "has expired" if problem.verify_code == _EXPIRED else "is not yet valid"
        return failed(
            f"by this machine's clock, the server's certificate {when}",
            "If 'clock' below is in order, tell the coordinator to renew its server certificate.",
        )
    if problem.verify_code in (_HOSTNAME, _ADDRESS):
        return failed(
            f"the server's certificate is not for {route.host}",
            "Tell the coordinator that its address in your enrolment is not in its server certificate.",
        )
    return failed(
        f"the certificate presented was issued by '{issuer_of(answer.certificate)}', not by the consortium's "
        "authority",
        f"If that is a proxy or firewall of yours that inspects TLS, have it pass {route.address} through "
        "without inspection. Else somebody else answers at the coordinator's address: report it there.",
    )


def issuer_of(certificate: bytes) -> str:
    """Return a certificate's issuer as one line of printable text; it comes from a stranger.

    Args:
        certificate: DER.
    """
    try:
        name = x509.load_der_x509_certificate(certificate).issuer.rfc4514_string()
    except ValueError:
        return "unreadable"
    plain = "".join(each if each.isprintable() else "?" for each in name)
    return plain[:_LONGEST_NAME] or "nobody named"


def _seconds(date: str) -> float | None:
    """Return the time of an HTTP Date header (RFC 9110 section 5.6.7) in Unix seconds."""
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
