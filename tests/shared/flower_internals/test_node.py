import ast
import inspect
import os
import types

import flwr.supernode.fleet_http_connection as fleet_connection
import flwr.supernode.start_client_internal as node_loop
import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import ErrorCode
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.run_pb2 import Run
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.cli.flower_supernode import SuperNodeLifespanConfig, _start_supernode_http_api
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedcad.shared.flower_environment import flower_environment
from fedcad.shared.flower_internals.node import (
    MessageTasks,
    NodeSettings,
    _client_class,
    _lifespan,
    _patient,
    has_whole_reply,
)

OURS = "a" * 64
RUN = 7


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Whatever a test replaces in flwr is put back."""
    for module, names in {
        node_loop: ("_push_messages", "time", "_verify_fab", "FAB_VERIFICATION_ERROR", "pull_objects"),
        fleet_connection: ("make_simple_http_retry_invoker", "FleetHttpClient"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))


class Events:
    def __init__(self) -> None:
        self.refusals: list[tuple[str, str]] = []
        self.troubles: list[int] = []

    def refused(self, app: str, bundle_hash: str) -> str:
        self.refusals.append((app, bundle_hash))
        return f"refused {app}"

    def trouble(self, error, status, call) -> None:
        self.troubles.append(status)


def make_client(tmp_path, events):
    settings = NodeSettings("localhost:1", b"", tmp_path / "key", b"our bundle", OURS, {})
    return _client_class(settings, events)("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("bundle_hash", "task"),
    [
        ("b" * 64, "flwr-serverapp"),
        (OURS, "flwr-agentapp"),
        (OURS, "flwr-simulation"),
        (OURS.upper(), "flwr-serverapp"),
    ],
)
def test_every_other_run_is_refused_by_name_without_a_byte_of_its_bundle(tmp_path, bundle_hash, task):
    events = Events()
    client = make_client(tmp_path, events)
    client.run = Run(fab_id="evil/app", fab_version="6.6.6", primary_task_type=task)
    # Nothing listens at the client's address: an attempt to download would raise.
    answer = client.GetFab(GetFabRequest(hash_str=bundle_hash)).fab
    assert answer.content == b""
    assert events.refusals == [("evil/app 6.6.6", bundle_hash)]
    assert node_loop.FAB_VERIFICATION_ERROR.reason == "refused evil/app 6.6.6"
    assert answer.verifications["valid_license"]


def test_the_own_bundle_is_used_and_never_downloaded(tmp_path):
    events = Events()
    client = make_client(tmp_path, events)
    client.run = Run(fab_id="fedcad/fedcad", fab_version="1", primary_task_type="flwr-serverapp")
    assert client.GetFab(GetFabRequest(hash_str=OURS)).fab.content == b"our bundle"
    assert events.refusals == []


def answered(status: int, path: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", f"https://localhost{path}")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "gives_up"),
    [
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), False),
        (httpx.ReadError("TLS connection was closed"), False),
        (httpx.ConnectTimeout("x"), False),
        (answered(500, "/v1/fleet/push-messages"), False),
        (answered(507, "/v1/fleet/push-object"), False),
        (answered(412, "/v1/fleet/activate-node"), False),
        (answered(401, "/v1/fleet/activate-node"), False),
        (answered(404, "/v1/fleet/pull-messages"), True),
        (answered(412, "/v1/fleet/pull-messages"), True),
    ],
)
def test_a_node_gives_up_only_where_going_on_is_useless(error, gives_up):
    assert _patient(fleet_connection.make_simple_http_retry_invoker()).should_giveup(error) is gives_up


def test_flower_itself_would_give_up_at_tls_trouble():
    """The reason for the change; when this fails, flwr has mended it."""
    invoker = fleet_connection.make_simple_http_retry_invoker()
    assert invoker.should_giveup(httpx.ReadError("TLS connection was closed"))


def test_the_names_behind_the_fence_are_as_expected(tmp_path):
    assert list(inspect.signature(_start_supernode_http_api).parameters) == ["config", "state_factory"]
    assert list(inspect.signature(FleetHttpClient._send).parameters) == ["self", "context", "stream"]
    assert list(inspect.signature(node_loop._verify_fab).parameters) == ["fab", "trusted_entities"]
    assert list(inspect.signature(node_loop._push_messages).parameters) == [
        "state",
        "object_store",
        "send",
        "push_object",
    ]
    settings = NodeSettings("localhost:1", b"", tmp_path / "key", b"", OURS, {})
    assert isinstance(_lifespan(settings, b"secret"), SuperNodeLifespanConfig)
    for call in ("ActivateNode", "DeactivateNode", "PullMessages", "SendNodeHeartbeat", "GetRun", "GetFab"):
        assert list(inspect.signature(getattr(FleetHttpClient, call)).parameters) == ["self", "request"]
    for call in ("get_tasks", "claim_task", "finish_task", "_on_task_tokens_expired"):
        assert callable(getattr(InMemoryNodeState, call))


def test_the_loop_of_a_node_uses_of_time_only_the_sleeps_that_are_known():
    tree = ast.parse(inspect.getsource(node_loop))
    used = [
        (node.func.attr, ast.literal_eval(node.args[0]))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "time"
    ]
    assert sorted(used) == [("sleep", 0.5), ("sleep", 0.5), ("sleep", 3)]
    assert isinstance(node_loop.time, types.ModuleType)


def test_the_loop_asks_for_the_run_then_the_bundle_and_verifies_before_it_reads_it():
    source = inspect.getsource(node_loop._pull_and_store_message)
    order = [
        "get_run(run_id)",
        "get_fab(",
        "_verify_fab(fab",
        "get_fused_config_from_fab(fab",
        "state.store_fab",
    ]
    places = [source.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("progress", ["nothing", "message fetched", "reply begun"])
def test_a_killed_process_is_answered_for_however_far_it_had_come(progress, tmp_path, monkeypatch):
    """Flwr waits for ever for a reply where the message was not fetched or a part of the reply is missing."""
    monkeypatch.setenv("PATH", flower_environment(tmp_path, os.environ)["PATH"])
    objects = ObjectStoreFactory()
    state = NodeStateFactory(objectstore_factory=objects).state()
    metadata = Metadata(RUN, "", 1, 2, "", "", 1.0e9, 3600.0, "query.ready")
    message = make_message(metadata=metadata, content=RecordDict())
    node_loop._insert_message(message, state, objects.store())
    state.store_run(Run(run_id=RUN))
    state.create_task(TaskType.CLIENT_APP, RUN)
    tasks = MessageTasks("127.0.0.1:1")
    tasks.start_pending(state)
    if progress != "nothing":
        assert len(state.get_messages_legacy(run_ids=[RUN], is_reply=False)) == 1
        state.record_message_processing_start(message.metadata.message_id)
    if progress == "reply begun":
        begun = Message(RecordDict({"a": ConfigRecord({"b": 1})}), reply_to=message)
        begun.metadata.__dict__["_message_id"] = begun.object_id
        state.store_message_and_object_tree(begun, get_object_tree(begun), state.start_session(RUN))
    assert not has_whole_reply(state)
    ((_, process),) = tasks._living.values()
    process.kill()
    process.wait()
    tasks.mind()
    assert has_whole_reply(state)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
