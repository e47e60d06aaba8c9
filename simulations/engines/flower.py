"""Flower's own simulation runtime (Ray) as an engine: for many cores, several GPUs, or a cluster.

Same apps, same bits as in process: one torch thread for each client.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedcad.simulations.engines.faults import OUTLIVES
from fedcad.simulations.engines.simulated_client import make_simulated_app

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


class PartitionedApp(ClientApp):
    """A client app that finds its node's configuration by Flower's partition number."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Keep the configurations; the app itself is made where it runs."""
        super().__init__()
        self._configurations = [dict(node) for node in nodes]

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message as the node of this partition."""
        torch.set_num_threads(1)
        number = int(str(context.node_config["partition-id"]))
        context.node_config.update({**self._configurations[number], OUTLIVES: True})
        return make_simulated_app()(message, context)


class _ConfiguredServer(ServerApp):
    """A server app whose run configuration is set here: ``run_simulation`` cannot pass one."""

    def __init__(self, server_app: ServerApp, folder: Path, interrupted: threading.Event) -> None:
        super().__init__()
        self._server_app = server_app
        self._folder = folder
        self._interrupted = interrupted

    def __call__(self, grid: Grid, context: Context) -> None:
        context.run_config = {"run-directory": str(self._folder)}
        pull = grid.pull_messages

        def pull_unless_interrupted(message_ids: Iterable[str]) -> Iterable[Message]:
            if self._interrupted.is_set():
                raise RuntimeError("the simulation was interrupted")
            return pull(message_ids)

        grid.pull_messages = pull_unless_interrupted  # type: ignore[method-assign]
        self._server_app(grid, context)


@contextmanager
def _noticing_ctrl_c(interrupted: threading.Event) -> Iterator[None]:
    """Set an event on Ctrl-C, then interrupt as usual.

    Why: flwr 1.41 answers Ctrl-C by waiting for the server app's thread, which would wait for replies that
    never come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def notice(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_on_flower(
    server_app: ServerApp, nodes: Sequence[Mapping[str, Any]], workers: int, folder: Path
) -> None:
    """Run a server app and its nodes on Flower's simulation runtime.

    Args:
        server_app: The coordinator's app.
        nodes: Configuration of each node, in the order of partitions.
        workers: Number of clients that run at the same time.
        folder: Run folder.
    """
    os.environ.update(_QUIET)
    # Imported late: it pulls in Ray, which the default engine does not need.
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    interrupted = threading.Event()
    with _noticing_ctrl_c(interrupted):
        run_simulation(
            server_app=_ConfiguredServer(server_app, folder, interrupted),
            client_app=PartitionedApp(nodes),
            num_supernodes=len(nodes),
            backend_config={
                "init_args": {"num_cpus": workers, "log_to_driver": False, "logging_level": logging.ERROR},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )
