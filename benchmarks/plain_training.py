"""The practical limit: the same steps in plain torch, in forked workers that share memory; nothing else."""

import json
import mmap
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.plain_networks import BUILDERS, load_flat


def shared(values: int) -> Tensor:
    """Zeros in memory that forked processes share."""
    return torch.frombuffer(mmap.mmap(-1, values * 4), dtype=torch.float32)


class Steps:
    """The local steps of any site."""

    def __init__(self, folder: Path) -> None:
        plain = json.loads((folder / "work.json").read_text())
        self.network: nn.Module = BUILDERS[plain["work"]["network"]]()
        self.network.train()
        self.sites = int(plain["work"]["sites"])
        self._rate = float(plain["learning_rate"])
        self._images, self._labels, self._orders = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "orders")
        )

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=self._rate)

    def train(self, site: int, number: int) -> int:
        """Take one site's steps of a round from the network's parameters; return the cases of a step."""
        optimizer = self.optimizer()
        images, labels = self._images[site], self._labels[site]
        for order in self._orders[site, number - 1]:
            batch, targets = torch.from_numpy(images[order]), torch.from_numpy(labels[order])
            optimizer.zero_grad()
            cross_entropy(self.network(batch), targets).backward()
            optimizer.step()
        return len(order)

    def flat(self) -> Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.network.parameters()])


def _work(steps: Steps, connection: Connection, parameters: Tensor, total: Tensor, mine: range) -> None:
    """Add up the updates of this worker's sites, whenever a round number arrives."""
    while (number := connection.recv()) is not None:
        total.zero_()
        for site in mine:
            load_flat(steps.network, parameters)
            steps.train(site, number)
            total.add_(steps.flat()).sub_(parameters)
        connection.send(number)


def run(folder: Path, rounds: int, workers: int) -> dict[str, object]:
    """Run and return times and the final sum of magnitudes."""
    torch.set_num_threads(1)
    steps = Steps(folder)
    steps.optimizer()  # imports what an optimizer needs once, before the fork
    initial = torch.from_numpy(np.load(folder / "initial.npy"))
    parameters, totals = shared(len(initial)), [shared(len(initial)) for _ in range(workers)]
    parameters.copy_(initial)
    context = multiprocessing.get_context("fork")
    ours, theirs = zip(*(context.Pipe() for _ in range(workers)), strict=True)
    processes = [
        context.Process(
            target=_work,
            args=(steps, theirs[number], parameters, totals[number], range(number, steps.sites, workers)),
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    started, ends = time.time(), []
    for number in range(1, rounds + 1):
        for connection in ours:
            connection.send(number)
        for connection in ours:
            connection.recv()
        for total in totals:
            parameters.add_(total, alpha=1 / steps.sites)
        ends.append(time.time())
    for connection, process in zip(ours, processes, strict=True):
        connection.send(None)
        process.join()
    return {"started": started, "ends": ends, "sum": float(parameters.double().abs().sum())}
