"""Flower adapter of the hospital node: messages in, answers out. No arithmetic."""

import logging
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedcad.client.archive.site_data import open_archive
from fedcad.client.node import Node
from fedcad.client.workbench import Workbench
from fedcad.shared.config.load import load_site
from fedcad.shared.contract import Contract
from fedcad.shared.errors import FedCADError
from fedcad.shared.flower_records import answer_content, read_plan

OpenNode = Callable[[Context], Node]
Describe = Callable[[Exception], str]
_LOG = logging.getLogger("fedcad.client")
_ERROR_CODE = 4


def open_node(context: Context) -> Node:
    """Open the site whose file ``site-file`` names for the study whose folder ``contract`` names."""
    config = context.node_config
    return _open(str(config["site-file"]), str(config["contract"]))


@lru_cache(maxsize=1)
def _open(site_file: str, contract_folder: str) -> Node:
    bench = Workbench(Contract.load(Path(contract_folder)))
    path = Path(site_file)
    site = load_site(path)
    data = open_archive(site, path.parent, bench.contract.study)
    return Node(site.name, data, bench, state=path.parent / site.state)


def withhold_reason(error: Exception) -> str:
    """Log at the site why it failed, and return what the coordinator may know: the kind of error only.

    Why: an error's text may hold a path or a value that is a patient's. Of an error that FedCAD did not
    raise itself, even the site's log gets the place only.
    """
    text = str(error) if isinstance(error, FedCADError) else "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("the site failed: %s: %s", type(error).__name__, text)
    return f"the site failed ({type(error).__name__}); the site's own log says why"


def make_client_app(
    open_node: OpenNode = open_node, mods: Sequence[Mod] = (), describe: Describe = withhold_reason
) -> ClientApp:
    """Return the node's Flower app.

    Args:
        open_node: How a node is opened from its Flower context.
        mods: Flower mods around every plan (a simulation's faults).
        describe: What the coordinator is told about an error.
    """
    client_app = ClientApp()

    @client_app.query("ready")
    def ready(message: Message, context: Context) -> Message:
        return _reply(message, describe, lambda: answer_content(open_node(context).info()))

    @client_app.train(mods=list(mods))
    def train(message: Message, context: Context) -> Message:
        return _reply(
            message,
            describe,
            lambda: answer_content(open_node(context).answer(*read_plan(message.content))),
        )

    return client_app


def _reply(message: Message, describe: Describe, answer: Callable[[], RecordDict]) -> Message:
    # The hospital's boundary: Flower would send the text of whatever is raised to the coordinator.
    try:
        content = answer()
    except Exception as error:  # noqa: BLE001
        return Message(Error(_ERROR_CODE, describe(error)), reply_to=message)
    return Message(content, reply_to=message)


app = make_client_app()
