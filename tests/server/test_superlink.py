import asyncio
import socket
import subprocess
import sys

import pytest
from consortium_processes import make_consortium
from hypothesis import given
from hypothesis import strategies as st

from fedcad.server.flower_control import CONTROL_HEADER, control_token
from fedcad.server.superlink import (
    LARGEST_BODY_BYTES,
    LOOPBACK,
    SuperLinkPlaces,
    fence,
    is_fleet_path,
    split_address,
)

CONTROL = 9092
TOKEN = control_token(b"a secret")
OURS = [(CONTROL_HEADER.encode(), TOKEN.encode())]
PUBLIC = ("192.0.2.1", 8443)


class Application:
    """Notes what reaches it; reads the whole body."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.received = 0
        self.saw_disconnect = False

    async def __call__(self, scope, receive, send) -> None:
        self.paths.append(scope.get("path", scope["type"]))
        while scope["type"] == "http":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.saw_disconnect = True
                return
            self.received += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})


def call(
    path: str, server, *, kind: str = "http", headers=(), pieces=(b"",)
) -> tuple[int | None, Application]:
    application, sent = Application(), []
    waiting = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "server": server, "headers": list(headers)}
    asyncio.run(fence(application, CONTROL, TOKEN)(scope, receive, send))
    starts = [message["status"] for message in sent if message["type"] == "http.response.start"]
    return (starts[0] if starts else None), application


@given(st.text())
def test_the_public_reaches_nothing_but_the_fleet_api(path):
    status, application = call(path, PUBLIC)
    if application.paths:
        assert path.startswith("/v1/fleet/")
    else:
        assert status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet",
        "/v1/fleet/../control/start-run",
        "/v1/fleet//v1/control/start-run",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/pull-messages",
        "/docs",
        "",
    ],
)
def test_paths_beside_the_fleet_api_do_not_exist_for_the_public(path):
    assert call(path, PUBLIC)[0] == 404
    assert not is_fleet_path(path)


@pytest.mark.parametrize(
    "server",
    [PUBLIC, (LOOPBACK, 8443), ("192.0.2.1", CONTROL), ("::1", CONTROL), None, ("localhost", CONTROL)],
)
def test_only_the_loopback_control_port_sees_everything(server):
    assert call("/v1/control/start-run", server, headers=OURS)[0] == 404
    assert call("/v1/control/start-run", (LOOPBACK, CONTROL), headers=OURS)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(CONTROL_HEADER.encode(), b"")],
        [(CONTROL_HEADER.encode(), TOKEN.encode()[:-1])],
        [(CONTROL_HEADER.encode(), control_token(b"another secret").encode())],
        [*OURS, *OURS],
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/fleet/x", "/docs", "/v1/runtime/../control/x", ""]
)
def test_other_accounts_of_this_machine_control_nothing(path, headers):
    """Whoever may start a run runs code as the coordinator, and reads its keys."""
    status, application = call(path, (LOOPBACK, CONTROL), headers=headers)
    assert (status, application.paths) == (401, [])


def test_flower_itself_asks_who_calls_its_runtime_api():
    assert call("/v1/runtime/acquire-task", (LOOPBACK, CONTROL))[0] == 200


def test_a_websocket_controls_nothing():
    status, application = call("/v1/control/x", (LOOPBACK, CONTROL), kind="websocket", headers=OURS)
    assert (status, application.paths) == (401, [])


def test_websockets_are_not_a_way_round():
    status, application = call("/v1/fleet/pull-messages", PUBLIC, kind="websocket")
    assert (status, application.paths) == (404, [])


def test_the_servers_own_start_and_stop_pass():
    assert call("", PUBLIC, kind="lifespan")[1].paths == [""]


@pytest.mark.parametrize("size", [str(LARGEST_BODY_BYTES + 1), "9" * 5000, "-1", "1e9", ""])
def test_a_body_that_says_it_is_too_large_is_refused_unread(size):
    status, application = call("/v1/fleet/x", PUBLIC, headers=[(b"content-length", size.encode())])
    assert (status, application.paths) == (413, [])


def test_a_body_of_the_largest_size_passes_and_one_byte_more_does_not():
    half = bytes(LARGEST_BODY_BYTES // 2)
    status, application = call("/v1/fleet/x", PUBLIC, pieces=[half, half])
    assert (status, application.received) == (200, LARGEST_BODY_BYTES)
    status, application = call("/v1/fleet/x", PUBLIC, pieces=[half, half, b"x"])
    assert status is None
    assert application.saw_disconnect
    assert application.received == LARGEST_BODY_BYTES


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0:8443", ("0.0.0.0", 8443)),
        ("[::1]:1", ("::1", 1)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_addresses_by_hand(address, expected):
    assert split_address(address) == expected


def test_flower_is_told_to_authenticate_nodes_and_to_install_nothing(tmp_path):
    consortium = make_consortium(tmp_path / "c")
    arguments = SuperLinkPlaces.of(consortium).arguments()
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(arguments)
    assert arguments[arguments.index("--host") + 1] == LOOPBACK
    assert arguments[arguments.index("--isolation") + 1] == "process"
    assert "--insecure" not in arguments
    secret = (consortium.keys / "superexec.secret").read_text()
    assert not any(secret in argument for argument in arguments)


def test_a_port_in_use_is_said_in_a_line_that_a_person_can_act_on(tmp_path) -> None:
    consortium = make_consortium(tmp_path / "c")
    host, port = split_address(consortium.config.listen)
    with socket.socket() as other:
        other.bind((host, port))
        other.listen()
        done = subprocess.run(
            [sys.executable, "-m", "fedcad.server.superlink", str(consortium.folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ERROR {host}:{port} of this machine cannot be used (Address already in use); "
        "stop what listens there, or set another port in consortium.yaml"
    )
    assert "Traceback" not in done.stderr
