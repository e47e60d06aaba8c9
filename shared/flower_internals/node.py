"""flwr's node, changed: one bundle only, no executor process, patient with networks, and talkative."""

import os
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import flwr.supernode.fleet_http_connection as fleet_connection
import flwr.supernode.start_client_internal as node_loop
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.fab_pb2 import Fab as FabMessage
from flwr.proto.fab_pb2 import GetFabRequest, GetFabResponse
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse, Run
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.cli.flower_supernode import SuperNodeLifespanConfig, _start_supernode_http_api
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeStateFactory

from fedcad.shared.flower_internals.arrivals import bounded_pull
from fedcad.shared.flower_internals.fence import replace, require_flower
from fedcad.shared.flower_internals.tasks import TaskLauncher
from fedcad.shared.secret_files import read_secret

_IDLE_SLEEP_S = 3
"""What flwr's loop of a node sleeps when there was no message."""
_REPLY_POLL_S = 0.2
_SERVER_ERROR = 500
_LOGIN = "/v1/fleet/activate-node"
_UNVERIFIED = {"valid_license": "Valid"}
"""Makes flwr's node ask whether the bundle is accepted; without it, flwr blames the server's version."""


class NodeEvents(Protocol):
    """What a node tells about itself."""

    def connected(self, node_id: int) -> None:
        """The coordinator accepted this node."""

    def contact(self, *, has_message: bool) -> None:
        """The coordinator answered."""

    def trouble(self, error: httpx.TransportError | None, status: int, call: str) -> None:
        """A call failed: with an error of the transport, or with a status of HTTP."""

    def refused(self, app: str, bundle_hash: str) -> str:
        """A run with another bundle was refused; returns the reason that the coordinator is told."""

    def idle_seconds(self) -> float:
        """How long to wait before asking for messages again."""


@dataclass(frozen=True)
class NodeSettings:
    """What a node needs: coordinator ``host:port``, its CA (PEM), the private key, its only bundle."""

    address: str
    root_certificates: bytes
    private_key: Path
    bundle: bytes
    bundle_hash: str
    node_config: dict[str, str | int | float | bool]
    """What the processes of messages are told."""
    largest_bytes: int = 2**40
    """Most bytes of a message from the coordinator."""
    previous_node_id: int | None = None
    """Id under which an earlier process of this node, which is certainly gone, may still count as online."""


def serve_node(settings: NodeSettings, events: NodeEvents) -> None:
    """Be a node until a signal ends this process or the coordinator refuses it.

    Guarantees:
        No byte of a bundle that the coordinator sends is read: the own bundle is used, or the run refused.
        The local Runtime API is on loopback, on a free port; only this process can claim tasks.
    """
    require_flower()
    key = load_ssh_private_key(read_secret(settings.private_key, "the node's key"), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a node's key is an elliptic-curve key in OpenSSH format")
    secret = secrets.token_bytes(32)
    objects = ObjectStoreFactory()
    states = NodeStateFactory(objectstore_factory=objects)
    server, _ = _start_supernode_http_api(_lifespan(settings, secret), states)
    port = server.servers[0].sockets[0].getsockname()[1]
    _enter(settings, events, MessageTasks(f"127.0.0.1:{port}"))
    try:
        node_loop.start_client_internal(
            state_factory=states,
            server_address=settings.address,
            node_config=settings.node_config,
            root_certificates=settings.root_certificates,
            insecure=False,
            authentication_keys=(key, key.public_key()),
            isolation="process",
            runtime_api_address=f"127.0.0.1:{port}",
            trusted_entities={"fedcad": ""},
            superexec_auth_secret=secret,
            runtime_dependency_install=False,
        )
    finally:
        # The API runs in a thread that would keep this process alive for ever.
        server.should_exit = True


def _lifespan(settings: NodeSettings, secret: bytes) -> SuperNodeLifespanConfig:
    nothing = dict.fromkeys(
        (
            *("authentication_keys", "max_retries", "max_wait_time", "runtime_certificates"),
            *("runtime_root_certificates_path", "health_server_address", "trusted_entities"),
            *("runtime_ssl_certfile", "runtime_ssl_keyfile"),
        )
    )
    return SuperNodeLifespanConfig(
        server_address=settings.address,
        root_certificates=settings.root_certificates,
        insecure=False,
        node_config=settings.node_config,
        isolation="process",
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
        host="127.0.0.1",
        port=0,
        **cast(dict[str, Any], nothing),
    )


def _enter(settings: NodeSettings, events: NodeEvents, tasks: "MessageTasks") -> None:
    """Put this node's behaviour in the place of flwr's."""

    def push_messages(*, state: Any, **named: Any) -> None:
        tasks.start_pending(state)
        while not has_whole_reply(state):
            sleep(_REPLY_POLL_S)
        push(state=state, **named)

    def sleep(seconds: float) -> None:
        tasks.mind()
        time.sleep(events.idle_seconds() if seconds >= _IDLE_SLEEP_S else min(seconds, _REPLY_POLL_S))

    def is_accepted(fab: Fab, _trusted: Any) -> bool:
        return fab.hash_str == settings.bundle_hash and bool(fab.content)

    push = replace(node_loop, "_push_messages", push_messages)
    replace(node_loop, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    replace(node_loop, "_verify_fab", is_accepted)
    pull = replace(node_loop, "pull_objects", None)
    replace(node_loop, "pull_objects", bounded_pull(pull, settings.largest_bytes))
    invoker = replace(fleet_connection, "make_simple_http_retry_invoker", None)
    replace(fleet_connection, "make_simple_http_retry_invoker", lambda: _patient(invoker()))
    replace(fleet_connection, "FleetHttpClient", _client_class(settings, events))


def _patient(invoker: Any) -> Any:
    """Make an invoker that never gives up on a network, on a server in trouble, or on being let in.

    flwr's give up, and end the node, at any error whose text contains ``tls`` or ``ssl``, at status 500, and
    where the coordinator does not know the key yet; a start costs seconds of a core, a question nothing.
    """
    gives_up = invoker.should_giveup

    def should_giveup(error: Exception) -> bool:
        if isinstance(error, httpx.TransportError):
            return False
        if isinstance(error, httpx.HTTPStatusError):
            is_login = error.request.url.path == _LOGIN
            if error.response.status_code >= _SERVER_ERROR or (is_login and error.response.is_client_error):
                return False
        return bool(gives_up(error))

    invoker.should_giveup = should_giveup
    return invoker


class _Client(FleetHttpClient):
    """flwr's client of the Fleet API with this node's behaviour; the method names are the protocol's."""

    settings: NodeSettings
    events: NodeEvents
    run: Run

    def _send(self, context: Any, *, stream: bool = False) -> httpx.Response:
        try:
            response = super()._send(context, stream=stream)
        except httpx.TransportError as error:
            self.events.trouble(error, 0, context.rpc_method)
            raise
        if response.is_error and response.status_code != httpx.codes.FORBIDDEN:
            self.events.trouble(None, response.status_code, context.rpc_method)
        return response

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802
        if self.settings.previous_node_id is not None:
            # Refused where it is not online any more, or the key has another id by now.
            with suppress(httpx.HTTPStatusError):
                super().DeactivateNode(DeactivateNodeRequest(node_id=self.settings.previous_node_id))
        response = super().ActivateNode(request)
        self.events.connected(response.node_id)
        return response

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:  # noqa: N802
        response = super().PullMessages(request)
        self.events.contact(has_message=bool(response.messages_list))
        return response

    def SendNodeHeartbeat(self, request: SendNodeHeartbeatRequest) -> SendNodeHeartbeatResponse:  # noqa: N802
        try:
            response = super().SendNodeHeartbeat(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code < _SERVER_ERROR:
                raise
            # flwr's thread of heartbeats would end here, and the node count as offline for ever.
            raise httpx.RemoteProtocolError("the coordinator is in trouble") from error
        if not response.success:
            os.kill(os.getpid(), signal.SIGINT)
        return response

    def GetRun(self, request: GetRunRequest) -> GetRunResponse:  # noqa: N802
        response = super().GetRun(request)
        self.run = response.run
        return response

    def GetFab(self, request: GetFabRequest) -> GetFabResponse:  # noqa: N802
        is_known = request.hash_str == self.settings.bundle_hash
        is_ours = is_known and self.run.primary_task_type == TaskType.SERVER_APP
        if not is_ours:
            reason = self.events.refused(f"{self.run.fab_id} {self.run.fab_version}", request.hash_str)
            replace(node_loop, "FAB_VERIFICATION_ERROR", Error(ErrorCode.INVALID_FAB, reason))
        content = self.settings.bundle if is_ours else b""
        return GetFabResponse(
            fab=FabMessage(hash_str=request.hash_str, content=content, verifications=_UNVERIFIED)
        )


def _client_class(settings: NodeSettings, events: NodeEvents) -> type[_Client]:
    return type("NodeClient", (_Client,), {"settings": settings, "events": events})


class MessageTasks:
    """Starts the process of each message, inside the node's process.

    flwr starts a second process of 100 MB that asks every second whether there is a task.
    """

    def __init__(self, address: str) -> None:
        """Start processes for the Runtime API at an address."""
        self._address = address
        self._launcher = TaskLauncher(TaskType.CLIENT_APP)
        self._living: dict[int, tuple[Any, subprocess.Popen[bytes]]] = {}

    def start_pending(self, state: Any) -> None:
        """Claim every waiting task and start its process."""
        for task in state.get_tasks(statuses=["pending"]):
            token = state.claim_task(task.task_id)
            if token and task.type == TaskType.CLIENT_APP:
                self._living[task.task_id] = state, self._launcher.start(self._address, token, ["--insecure"])

    def mind(self) -> None:
        """Answer for processes that ended without an answer; flwr would notice half a minute later."""
        for task_id, (state, process) in list(self._living.items()):
            if process.poll() is None:
                continue
            del self._living[task_id]
            self._launcher.reconcile()
            if state.finish_task(task_id, SubStatus.FAILED, "the process of the message was killed"):
                tasks = state.get_tasks(task_ids=[task_id])
                # flwr answers for fetched messages only, and waits for ever where one was not fetched yet, or
                # where a part of its reply is missing.
                state.get_messages_legacy(run_ids=[task.run_id for task in tasks], is_reply=False)
                _drop_unfinished_replies(state)
                state._on_task_tokens_expired(tasks)


def has_whole_reply(state: Any) -> bool:
    """Whether a reply lies in a node's state with all its parts: only then is any of it sent."""
    return any(_is_whole(state.object_store, reply) for reply in _replies(state))


def _drop_unfinished_replies(state: Any) -> None:
    """Forget replies of which a killed process had handed over a part."""
    for reply in _replies(state):
        if not _is_whole(state.object_store, reply):
            state.delete_messages(message_ids=[reply])
            state.object_store.delete(reply)


def _replies(state: Any) -> list[str]:
    with state.lock_msg_store:
        messages = {identity: entry.message for identity, entry in state.msg_store.items()}
    return [identity for identity, message in messages.items() if message.metadata.reply_to_message_id]


def _is_whole(objects: Any, identity: str) -> bool:
    tree = objects.get_object_tree(identity)
    return all(objects.get(part.object_id) for part in iterate_object_tree(tree))
