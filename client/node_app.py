"""Flower adapter of a node that works in the process of its message, as simulations run it. No arithmetic.

A hospital's own app, :mod:`fedcad.client.app`, only forwards messages to the training worker.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedcad.client.archive.site_data import open_archive
from fedcad.client.device import open_device
from fedcad.client.node import Node
from fedcad.client.withheld import ERROR_CODE, withhold_reason
from fedcad.client.workbench import Workbench
from fedcad.shared.config.load import load_site
from fedcad.shared.contract import Contract
from fedcad.shared.flower_records import answer_content, read_plan

OpenNode = Callable[[Context], Node]
Describe = Callable[[Exception], str]


def open_node(context: Context) -> Node:
    """Open the site whose file ``site-file`` names for the study whose folder ``contract`` names."""
    config = context.node_config
    return _open(str(config["site-file"]), str(config["contract"]))


@lru_cache(maxsize=1)
def _open(site_file: str, contract_folder: str) -> Node:
    path = Path(site_file)
    site = load_site(path)
    bench = Workbench(Contract.load(Path(contract_folder)), device=open_device(site.device))
    data = open_archive(site, path.parent, bench.contract.study)
    return Node(site.name, data, bench, state=path.parent / site.state)


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
        return Message(Error(ERROR_CODE, describe(error)), reply_to=message)
    return Message(content, reply_to=message)
