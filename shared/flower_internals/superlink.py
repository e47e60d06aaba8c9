"""flwr's SuperLink as an application that can be served on more than one listener."""

import secrets
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from fedcad.shared.flower_internals.fence import replace, require_flower


def superlink_application(arguments: Sequence[str]) -> Any:
    """Return flwr's SuperLink as an ASGI application, from the arguments of ``flower-superlink``."""
    # The package has a function of the module's name, which "import … as" would return.
    superlink = import_module("flwr.superlink.cli.flower_superlink")
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.superlink.main import create_app

    require_flower()
    replace(SqlLinkState, "create_node", _create_again(SqlLinkState.create_node))
    given, sys.argv = sys.argv, ["flower-superlink", *arguments]
    try:
        config = superlink._parse_superlink_lifespan_config()
    finally:
        sys.argv = given
    return create_app(config, superlink.SuperLinkLifespan)


def _create_again(create: Callable[..., int]) -> Callable[..., int]:
    """Let a key be registered that was registered before.

    flwr keeps the key of an unregistered node and refuses it for ever: a site whose certificate had expired
    for a day would need new keys. The old row stays, as a record, with a key that nobody has.
    """
    from flwr.supercore.constant import NodeStatus
    from flwr.supercore.state.schema.linkstate_models import Node
    from sqlalchemy import update

    def create_node(
        self: Any, owner_aid: str, owner_name: str, public_key: bytes, *rest: Any, **named: Any
    ) -> int:
        was = (Node.public_key == public_key, Node.status == NodeStatus.UNREGISTERED)
        with self.session() as session:
            session.execute(update(Node).where(*was).values(public_key=secrets.token_bytes(32)))
        return create(self, owner_aid, owner_name, public_key, *rest, **named)

    return create_node


def log_settings() -> dict[str, Any]:
    """Return uvicorn's log settings as flwr's SuperLink uses them: routine requests are not listed."""
    from flwr.supercore.http_logging import get_uvicorn_log_config
    from flwr.supercore.logger import console_handler

    return get_uvicorn_log_config(console_handler.level)
