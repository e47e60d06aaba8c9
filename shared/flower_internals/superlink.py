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
    replace(SqlLinkState, "activate_node", _activate_anew(SqlLinkState.activate_node))
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


def _activate_anew(activate: Callable[..., bool]) -> Callable[..., bool]:
    """Let whoever asked a node learn at its return that the question is lost, and must be asked again.

    A node activates itself when its process starts, and only then: what an earlier process had taken and not
    answered in full, nobody works on. flwr tells that only where somebody happens to ask while the node is
    offline; else the question stays open to its end. Here it ends at once, as one that has expired.
    """
    from flwr.supercore.state.schema.corestate_models import ObjectPushSessionRoot
    from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
    from flwr.supercore.utils import uint64_to_int64
    from sqlalchemy import delete, select, update

    def activate_node(self: Any, node_id: int, heartbeat_interval: float) -> bool:
        number = uint64_to_int64(node_id)
        half_sent = select(ObjectPushSessionRoot.root_object_id)
        answered = select(MessageRes.reply_to_message_id).where(MessageRes.reply_to_message_id.is_not(None))
        with self.session() as session:
            is_active = activate(self, node_id, heartbeat_interval)
            if is_active:
                session.execute(
                    delete(MessageRes).where(
                        MessageRes.src_node_id == number, MessageRes.message_id.in_(half_sent)
                    )
                )
                session.execute(
                    update(MessageIns)
                    .where(
                        MessageIns.dst_node_id == number,
                        MessageIns.delivered_at != "",
                        MessageIns.message_id.not_in(answered),
                    )
                    .values(ttl=0.0)
                )
        return is_active

    return activate_node


def log_settings() -> dict[str, Any]:
    """Return uvicorn's log settings as flwr's SuperLink uses them: routine requests are not listed."""
    from flwr.supercore.http_logging import get_uvicorn_log_config
    from flwr.supercore.logger import console_handler

    return get_uvicorn_log_config(console_handler.level)
