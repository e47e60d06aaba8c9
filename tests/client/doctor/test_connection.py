"""Addresses, proxies of the environment, and what ends a connection at which step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_network import LOOPBACK, Authority, closed_port, connect_proxy, https_server, listening

from fedcad.client.doctor.check import NotCheckable
from fedcad.client.doctor.connection import (
    Blocked,
    Proxy,
    Route,
    ask,
    join_address,
    open_tunnel,
    proxy_for,
    split_address,
)

AUTHORITY = Authority("Consortium")


@given(st.from_regex(r"\A[a-z][a-z0-9.-]{0,20}\Z") | st.ip_addresses().map(str), st.integers(1, 65535))
def test_addresses_round_trip(host, port):
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize("text", ["", "host", "host:", ":443", "host:0", "host:99999", "host:x", "[::1"])
def test_no_address_is_refused(text):
    with pytest.raises(NotCheckable, match="address"):
        split_address(text)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, ("p", 3128, "HTTPS_PROXY")),
        ({"https_proxy": "p:3128"}, ("p", 3128, "https_proxy")),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:2"}, ("low", 1, "https_proxy")),
        ({"HTTPS_PROXY": "http://up:2", "https_proxy": "http://low:1"}, ("low", 1, "https_proxy")),
        ({"ALL_PROXY": "http://p:1"}, ("p", 1, "ALL_PROXY")),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://p"}, ("p", 80, "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://[::1]:8080"}, ("::1", 8080, "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "coordinator.example.org"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost, .example.org"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample.org,other"}, ("p", 1, "HTTPS_PROXY")),
    ],
)
def test_proxy_of_an_environment(environment, expected):
    proxy = proxy_for("coordinator.example.org", environment)
    assert (proxy and (proxy.host, proxy.port, proxy.source)) == expected


def test_user_and_password_of_a_proxy_are_sent_and_not_shown():
    proxy = proxy_for("c", {"HTTPS_PROXY": "http://u%40ser:p%3Ass@p:3128"}, "site.yaml")
    # base64 of u@ser:p:ss
    assert proxy.authorization == "Basic dUBzZXI6cDpzcw=="
    assert str(proxy) == "p:3128 (from site.yaml)"


@pytest.mark.parametrize(
    "text",
    [
        "socks5://user:secret@p:1",
        "https://user:secret@p:1",
        "http://:secret@:1",
        "http://p:x",
        "http://[secret",
    ],
)
def test_proxy_that_cannot_be_used_is_not_quoted(text):
    with pytest.raises(NotCheckable) as caught:
        proxy_for("c", {"HTTPS_PROXY": text})
    assert "secret" not in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "proxied", "stage"),
    [
        ("nowhere.invalid", False, "name"),
        (LOOPBACK, False, "connect"),
        ("coordinator.test", True, "proxy address"),
    ],
)
def test_step_that_fails_is_named(host, proxied, stage):
    port = closed_port()
    proxy = Proxy(LOOPBACK, closed_port(), "", "test") if proxied else None
    with pytest.raises(Blocked) as caught:
        open_tunnel(Route(host, port, "", proxy))
    assert caught.value.stage == stage


def test_proxy_that_says_nothing_times_out():
    with listening(lambda client: client.recv(10_000) and client.recv(10_000)) as port:
        route = Route("coordinator.test", 443, "", Proxy(LOOPBACK, port, "", "test"))
        with pytest.raises(Blocked) as caught:
            open_tunnel(route, timeout_s=0.2)
    assert caught.value.stage == "proxy"


def test_answer_of_the_enrolled_coordinator_through_a_proxy(tmp_path):
    context = AUTHORITY.server(tmp_path, "coordinator.test")
    with https_server(context, headers="X-Probe: 7\r\n") as target, connect_proxy(target) as port:
        proxy = Proxy(LOOPBACK, port, "", "test")
        answer = ask(Route("coordinator.test", 443, AUTHORITY.pem, proxy), now=lambda: 12.0)
    assert answer.problem is None
    assert answer.headers["x-probe"] == "7"
    assert answer.received == 12.0
    assert answer.certificate


def test_strangers_certificate_is_seen_though_refused(tmp_path):
    with https_server(Authority("Other").server(tmp_path, LOOPBACK)) as port:
        answer = ask(Route(LOOPBACK, port, AUTHORITY.pem, None))
    assert answer.problem is not None
    assert b"Other" in answer.certificate
    assert "date" in answer.headers


def test_authority_that_cannot_be_read():
    with listening(lambda client: None) as port, pytest.raises(NotCheckable):
        ask(Route(LOOPBACK, port, "no certificate", None))
