"""Every step of a connection broken for real, on loopback."""

import re
import ssl
import time

import pytest
from loopback_network import LOOPBACK, Authority, closed_port, connect_proxy, https_server, listening

from fedcad.client.doctor.check import Verdict, examine
from fedcad.client.doctor.connection import Proxy, Route
from fedcad.client.doctor.network import VERSION_HEADER, Network, issuer_of
from fedcad.shared.version import __version__

CONSORTIUM, STRANGER = Authority("Consortium"), Authority("Blue Coat Inspection")
OK, WARNING, FAILED, SKIPPED = Verdict


def verdicts(port, *, host=LOOPBACK, proxy=None, now=time.time, ca=CONSORTIUM.pem):
    """Return the findings by name."""
    network = Network(lambda: Route(host, port, ca, proxy), now)
    return {result.check.name: result.finding for result in examine(network.checks(), lambda _: print)}


def proxy_at(port, authorization=""):
    return Proxy(LOOPBACK, port, authorization, "HTTPS_PROXY")


@pytest.fixture
def tls(tmp_path):
    return CONSORTIUM.server(tmp_path, LOOPBACK, "coordinator.test")


def test_everything_in_order(tls):
    with https_server(tls, headers=f"{VERSION_HEADER}: {__version__}\r\n") as port:
        found = verdicts(port)
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(found, OK)
    assert list(found) == ["proxy", "name (DNS)", "port", "TLS", "clock", "version"]
    assert all(finding.remedy == "" for finding in found.values())


def test_name_that_does_not_resolve_is_one_problem():
    found = verdicts(443, host="no-such-host.invalid")
    assert found["name (DNS)"].verdict is FAILED
    assert "getent hosts no-such-host.invalid" in found["name (DNS)"].remedy
    assert {found[name].verdict for name in ("port", "TLS", "clock", "version")} == {SKIPPED}


def test_closed_port_is_one_problem_and_names_the_firewall_rule():
    port = closed_port()
    found = verdicts(port)
    assert found["port"].verdict is FAILED
    assert f"outgoing TCP to {LOOPBACK}:{port}" in found["port"].remedy
    assert "refused" in found["port"].found
    assert {found[name].verdict for name in ("TLS", "clock", "version")} == {SKIPPED}


def test_inspecting_proxy_is_named_by_its_issuer(tmp_path):
    with https_server(STRANGER.server(tmp_path, LOOPBACK)) as port:
        found = verdicts(port)
    assert found["TLS"].verdict is FAILED
    assert "O=Blue Coat Inspection" in found["TLS"].found
    assert "without inspection" in found["TLS"].remedy
    assert found["clock"].verdict is OK
    assert "unverified" in found["clock"].found


@pytest.mark.parametrize(("days", "words"), [((-3, -1), "has expired"), ((1, 3), "is not yet valid")])
def test_certificate_outside_its_time_points_to_clock_and_renewal(tmp_path, days, words):
    with https_server(CONSORTIUM.server(tmp_path, LOOPBACK, days=days)) as port:
        found = verdicts(port)
    assert found["TLS"].verdict is FAILED
    assert words in found["TLS"].found
    assert found["clock"].verdict is OK


def test_certificate_for_another_name(tmp_path):
    with https_server(CONSORTIUM.server(tmp_path, "other.test")) as port:
        found = verdicts(port)["TLS"]
    assert found.verdict is FAILED
    assert f"not for {LOOPBACK}" in found.found


def test_plain_server_at_the_port_does_no_tls():
    with listening(lambda client: client.sendall(b"SSH-2.0-OpenSSH_9\r\n")) as port:
        found = verdicts(port)
    assert found["TLS"].verdict is FAILED
    assert "OpenSSH" not in found["TLS"].found
    assert found["clock"].verdict is SKIPPED


@pytest.mark.parametrize(
    ("ahead_s", "verdict", "words"),
    [
        (0, OK, "agrees"),
        (45, OK, "agrees"),
        (80, WARNING, "behind"),
        (-80, WARNING, "ahead of"),
        (400, FAILED, "refused"),
        (-400, FAILED, "refused"),
    ],
)
def test_clock_is_compared_with_the_coordinators(tls, ahead_s, verdict, words):
    with https_server(tls, ahead_s=ahead_s) as port:
        clock = verdicts(port)["clock"]
    assert clock.verdict is verdict
    assert words in clock.found
    if verdict is not OK:
        seconds = int(re.match(r"\d+", clock.found)[0])
        assert abs(seconds - abs(ahead_s)) < 20
        assert "NTP" in clock.remedy


def test_server_without_a_date_is_a_warning(tls):
    def handle(client):
        with tls.wrap_socket(client, server_side=True) as stream:
            stream.recv(1000)
            stream.sendall(b"HTTP/1.1 200 OK\r\nDate: yesterday\r\nContent-Length: 0\r\n\r\n")

    with listening(handle) as port:
        found = verdicts(port)
    assert found["TLS"].verdict is OK
    assert found["clock"].verdict is WARNING


def test_other_version_is_refused_and_odd_text_ignored(tls, tmp_path):
    with https_server(tls, headers=f"{VERSION_HEADER}: 99.1\r\n") as port:
        found = verdicts(port)["version"]
    assert found.verdict is FAILED
    assert "fedcad[client]==99.1" in found.remedy
    with https_server(tls, headers=f"{VERSION_HEADER}: '; rm -rf /\r\n") as port:
        assert verdicts(port)["version"].verdict is SKIPPED
    stranger = STRANGER.server(tmp_path / "other", LOOPBACK)
    with https_server(stranger, headers=f"{VERSION_HEADER}: 99.1\r\n") as port:
        assert verdicts(port)["version"].verdict is SKIPPED


def test_proxy_that_lets_through(tls):
    seen = []
    with https_server(tls) as target, connect_proxy(target, seen=seen) as port:
        found = verdicts(443, host="coordinator.test", proxy=proxy_at(port))
    assert found.pop("version").verdict is SKIPPED
    assert {finding.verdict for finding in found.values()} == {OK}
    assert "the proxy resolves" in found["name (DNS)"].found
    assert seen[0].startswith("CONNECT coordinator.test:443 HTTP/1.1\r\nHost: coordinator.test:443\r\n")


def test_proxy_that_inspects(tmp_path):
    context = STRANGER.server(tmp_path, "coordinator.test")
    with https_server(context) as target, connect_proxy(target) as port:
        found = verdicts(443, host="coordinator.test", proxy=proxy_at(port))
    assert found["proxy"].verdict is OK
    assert "O=Blue Coat Inspection" in found["TLS"].found


@pytest.mark.parametrize(
    ("status", "words"), [(403, "allow CONNECT to coordinator.test:443"), (407, "user"), (502, "itself")]
)
def test_proxy_that_refuses_is_one_problem(status, words):
    with connect_proxy(1, refuse=status) as port:
        found = verdicts(443, host="coordinator.test", proxy=proxy_at(port))
    assert found["proxy"].verdict is FAILED
    assert f"HTTP {status}" in found["proxy"].found
    assert words in found["proxy"].remedy
    assert {found[name].verdict for name in ("port", "TLS", "clock", "version")} == {SKIPPED}


def test_proxy_with_password_is_never_shown(tls):
    secret = "Basic dXNlcjpzZWNyZXQ="
    with https_server(tls) as target, connect_proxy(target, authorization=secret) as port:
        without = verdicts(443, host="coordinator.test", proxy=proxy_at(port))
        found = verdicts(443, host="coordinator.test", proxy=proxy_at(port, secret))
    assert without["proxy"].verdict is FAILED
    assert found["proxy"].verdict is OK
    assert "dXNlc" not in str(found)


def test_absent_proxy_and_something_that_is_none():
    found = verdicts(443, host="coordinator.test", proxy=proxy_at(closed_port()))
    assert found["proxy"].verdict is FAILED
    assert "Check the proxy's address" in found["proxy"].remedy

    def smtp(client):
        client.recv(1000)
        client.sendall(b"220 smtp\r\n")

    with listening(smtp) as port:
        found = verdicts(443, host="coordinator.test", proxy=proxy_at(port))
    assert "does not answer as a proxy" in found["proxy"].found
    assert "no HTTP proxy" in found["proxy"].remedy


def test_issuer_of_a_stranger_is_bounded_and_printable():
    hostile = Authority("\x1b[31m" + "x" * 60)
    der = ssl.PEM_cert_to_DER_cert(hostile.pem)
    assert issuer_of(der).isprintable()
    assert len(issuer_of(der)) <= 200
    assert issuer_of(b"nonsense") == "unreadable"
