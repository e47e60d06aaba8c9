"""The contract with flwr's SuperLink; fails loudly on a flwr whose inside is another."""

import inspect
from importlib import import_module

from fedcad.shared.flower_internals.superlink import log_settings


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
