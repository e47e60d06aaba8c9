"""The server of Flower's minimal app: stock FedAvg that looks at the clock."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

_ARRAYS = 20

app = ServerApp()


class TimedFedAvg(FedAvg):
    """Flower's FedAvg; notes when a round begins and when its mean is there."""

    def __init__(self, **options: Any) -> None:
        """Nothing has happened yet."""
        super().__init__(**options)
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.counted: list[int] = []

    def configure_train(self, server_round: int, *args: Any, **named: Any) -> Any:
        """Note the time."""
        self.starts.append(time.time())
        return super().configure_train(server_round, *args, **named)

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> Any:
        """Note the time, and how many answers there were."""
        kept = list(replies)
        found = super().aggregate_train(server_round, kept)
        self.ends.append(time.time())
        self.counted.append(sum(not reply.has_error() for reply in kept))
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write the times where the run's configuration says."""
    options = context.run_config
    size, sites = int(options["values"]), int(options["sites"])
    generator = np.random.default_rng(1)
    parts = [len(part) for part in np.array_split(np.empty(size, np.uint8), _ARRAYS)]
    arrays = {f"layer{n}": Array(generator.standard_normal(part, np.float32)) for n, part in enumerate(parts)}
    least = {"min_train_nodes": sites, "min_available_nodes": sites}
    strategy = TimedFedAvg(fraction_train=1.0, fraction_evaluate=0.0, **least)
    strategy.start(grid, ArrayRecord(arrays), num_rounds=int(options["rounds"]))
    found = {"starts": strategy.starts, "ends": strategy.ends, "counted": strategy.counted}
    path = Path(str(options["out"]))
    path.with_suffix(".new").write_text(json.dumps(found), encoding="utf-8")
    path.with_suffix(".new").replace(path)
