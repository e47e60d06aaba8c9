"""The same steps on Flower's own simulation engine: stock FedAvg strategy, plain client, one CPU a client."""

import logging
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.plain_networks import load_flat
from benchmarks.plain_training import Steps


class TimedFedAvg(FedAvg):
    """Flower's FedAvg; only looks at the clock."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.started = 0.0
        self.ends: list[float] = []

    def configure_train(self, server_round: int, *args: Any) -> Any:
        self.started = self.started or time.time()
        return super().configure_train(server_round, *args)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        found = super().aggregate_train(server_round, replies)
        self.ends.append(time.time())
        return found


@lru_cache(maxsize=1)
def _steps(folder: Path) -> Steps:
    torch.set_num_threads(1)
    return Steps(folder)


def make_client(folder: Path) -> ClientApp:
    """Return a client that takes its site's steps."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        steps = _steps(folder)
        steps.network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        number = int(message.content["config"]["server-round"])
        steps.train(int(context.node_config["partition-id"]), number)
        content = {
            "arrays": ArrayRecord(steps.network.state_dict()),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    return client


def run(folder: Path, rounds: int, workers: int) -> dict[str, object]:
    """Run and return times and the final sum of magnitudes."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", OMP_NUM_THREADS="1")
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    steps, found = _steps(folder), dict[str, object]()
    load_flat(steps.network, torch.from_numpy(np.load(folder / "initial.npy")))
    server, sites = ServerApp(), steps.sites

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        least = {"min_train_nodes": sites, "min_available_nodes": sites}
        strategy = TimedFedAvg(fraction_train=1.0, fraction_evaluate=0.0, **least)
        result = strategy.start(grid, ArrayRecord(steps.network.state_dict()), num_rounds=rounds)
        arrays = result.arrays.to_torch_state_dict().values()
        total = sum(float(each.double().abs().sum()) for each in arrays)
        found.update(started=strategy.started, ends=strategy.ends, sum=total)

    run_simulation(
        server_app=server,
        client_app=make_client(folder),
        num_supernodes=sites,
        backend_config={
            "init_args": {"num_cpus": workers, "log_to_driver": False, "logging_level": logging.ERROR},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    return found
