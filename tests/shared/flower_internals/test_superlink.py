"""The contract with flwr's SuperLink; fails loudly on a flwr whose inside is another."""

import inspect
from importlib import import_module

from flwr.common.constant import NOOP_FLWR_AID
from flwr.supercore.constant import NOOP_FEDERATION_ID

from fedcad.shared.flower_internals.superlink import _activate_anew, log_settings


def test_the_names_behind_the_fence_are_as_expected():
    superlink = import_module("flwr.superlink.cli.flower_superlink")
    main = import_module("flwr.superlink.main")
    assert list(inspect.signature(superlink._parse_superlink_lifespan_config).parameters) == []
    assert list(inspect.signature(main.create_app).parameters) == ["config", "superlink_lifespan_class"]
    assert list(inspect.signature(superlink.SuperLinkLifespan).parameters) == ["config", "state_factory"]


def test_flower_itself_would_serve_everything_on_one_port():
    """The reason for the fence: once flwr has a listener of its own for nodes, think this over."""
    source = inspect.getsource(import_module("flwr.superlink.cli.flower_superlink")._run_superlink_http_api)
    assert source.count("uvicorn.run(") == 1


def test_nodes_cannot_register_themselves_when_authentication_is_on():
    handlers = import_module("flwr.superlink.servicer.fleet.fleet_handlers")
    source = inspect.getsource(handlers.register_node)
    assert "if enable_supernode_auth:" in source
    assert "FLEET_SUPERNODE_REGISTRATION_DISABLED" in source


def test_log_settings_print_times_and_levels():
    assert "http" in log_settings()["formatters"]


def test_flower_itself_would_refuse_a_key_that_was_registered_before():
    """The reason for :func:`_create_again`; what it does is tested in tests/server/test_flower_control.py."""
    linkstate = import_module("flwr.server.superlink.linkstate.sql_linkstate")
    assert list(inspect.signature(linkstate.SqlLinkState.create_node).parameters)[:4] == [
        "self",
        "owner_aid",
        "owner_name",
        "public_key",
    ]
    assert "UNREGISTERED" not in inspect.getsource(linkstate.SqlLinkState.create_node)
    assert {"public_key", "status"} <= set(linkstate.NodeModel.__table__.columns.keys())


def test_what_a_returning_node_had_taken_ends_as_expired_and_nothing_else_does(tmp_path, monkeypatch):
    """With flwr's own state: a question taken and unanswered, one that waits, one of another node."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.common.constant import ErrorCode
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.supercore.inflatable.inflatable_object import get_object_tree
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.federation import NoOpFederationManager

    database = str(tmp_path / "link.db")
    objects = ObjectStoreFactory(database).store()
    state = SqlLinkState(database, NoOpFederationManager(), objects)
    state.initialize()
    monkeypatch.setattr(SqlLinkState, "activate_node", _activate_anew(SqlLinkState.activate_node))
    run_id = state.create_run(
        "a/b", "1", "f" * 64, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, "flwr-serverapp"
    )
    assert run_id
    nodes = [state.create_node(NOOP_FLWR_AID, "x", key, 30.0) for key in (b"one", b"two")]
    for node in nodes:
        assert state.activate_node(node, 30.0)
    for name, value in {"_run_id": run_id, "_node_id": 1, "_task_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)

    def ask(node: int, text: str) -> str:
        message = Message(RecordDict({"c": ConfigRecord({"text": text})}), node, "query")
        message.metadata.__dict__["_message_id"] = message.object_id
        state.store_message_and_object_tree(message, get_object_tree(message), state.start_session(run_id))
        return message.object_id

    taken = ask(nodes[0], "taken")
    assert len(state.get_message_ins(nodes[0], limit=1)) == 1
    waiting, other = ask(nodes[0], "waiting"), ask(nodes[1], "other")
    assert len(state.get_message_ins(nodes[1], limit=1)) == 1

    assert state.deactivate_node(nodes[0])
    assert state.activate_node(nodes[0], 30.0)
    (answer,) = state.get_message_res({taken, waiting, other}, run_id)
    assert answer.metadata.reply_to_message_id == taken
    assert answer.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert len(state.get_message_ins(nodes[0], limit=5)) == 1
    # A node that is active is not activated again, and nothing of it ends.
    assert not state.activate_node(nodes[0], 30.0)
    assert state.get_message_res({waiting, other}, run_id) == []
