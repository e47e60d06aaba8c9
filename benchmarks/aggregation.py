"""Aggregation of 100 MB updates: FedCAD's exact sums against Flower's FedAvg and a bare ``torch.add_``.

Each method runs in a process of its own with one thread. Methods that can stream get one update at a time;
making it is not timed. ``python -m benchmarks.aggregation --help``.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process_tree import measure
from benchmarks.tables import Goal, goals_table, machine, markdown, ratios, report, spread

VALUES = 25_000_000
"""Values of an update; as float32 these are 100 MB."""
ARRAYS = 20
OURS, FLOWER, BARE = "FedCAD Aggregator", "flwr FedAvg", "torch add_"
_NOISE_MB = 60.0


def updates(count: int, values: int) -> Iterator[Any]:
    """Yield updates, one at a time; each is new memory."""
    import numpy as np

    generator = np.random.default_rng(1)
    block = generator.standard_normal(1 << 16, dtype=np.float32) * np.float32(0.01)
    for number in range(count):
        update = np.resize(block, values)
        update[: number + 1] += 1
        yield update
        del update


def _bare(count: int, values: int) -> tuple[float, float]:
    import torch

    total, seconds = torch.zeros(values), 0.0
    for update in updates(count, values):
        tensor, start = torch.from_numpy(update), time.process_time()
        total.add_(tensor, alpha=1 / count)
        seconds += time.process_time() - start
        del tensor, update
    return seconds, _magnitude(total)


def _ours(count: int, values: int) -> tuple[float, float]:
    from fedcad.server.aggregation import Aggregator

    aggregator = Aggregator()
    start = time.process_time()
    aggregator.begin({"model": values}, {"model": 3 * count}, enrolled=count)
    seconds = time.process_time() - start
    for update in updates(count, values):
        start = time.process_time()
        aggregator.add({"model": update}, weights={"model": 3})
        seconds += time.process_time() - start
        del update
    start = time.process_time()
    mean = aggregator.close().means["model"]
    return seconds + time.process_time() - start, _magnitude(mean)


def _flower(count: int, values: int) -> tuple[float, float]:
    """Flower's strategy takes all replies together."""
    import numpy as np
    import torch
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    contents = []
    for update in updates(count, values):
        parts = np.split(update, ARRAYS)
        record = ArrayRecord({f"layer{number}": Array(part) for number, part in enumerate(parts)})
        metrics = MetricRecord({"num-examples": 3})
        contents.append(RecordDict({"arrays": record, "metrics": metrics}))
        del update, parts
    start = time.process_time()
    result = aggregate_arrayrecords(contents, "num-examples")
    seconds = time.process_time() - start
    return seconds, sum(_magnitude(torch.from_numpy(array.numpy())) for array in result.values())


def _magnitude(vector: Any) -> float:
    """Return Σ|v|, part by part: the check must not raise the peak of memory."""
    return sum(float(part.double().abs().sum()) for part in vector.split(1 << 18))


METHODS: dict[str, Callable[[int, int], tuple[float, float]]] = {BARE: _bare, OURS: _ours, FLOWER: _flower}


def child(method: str, count: int, values: int, result: Path) -> None:
    """Run one method in this process and write what it took."""
    import torch

    torch.set_num_threads(1)
    METHODS[method](1, 1000)  # imports
    before = _peak_mb()
    seconds, total = METHODS[method](count, values)
    found = {"ms_per_update": 1000 * seconds / count, "peak_mb": _peak_mb() - before, "sum": total}
    result.write_text(json.dumps(found), encoding="utf-8")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_once(method: str, count: int, values: int) -> dict[str, float]:
    """Run one method in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "benchmarks.aggregation", "--child", method, str(count), str(values)]
        measure([*command, result.name], {"OMP_NUM_THREADS": "1"})
        found: dict[str, float] = json.loads(Path(result.name).read_text())
    return found


def run_all(counts: Sequence[int], values: int, repetitions: int) -> tuple[list[str], dict[str, Any]]:
    """Run every method in turn, again and again, for each number of updates."""
    before = machine()
    found = {count: {method: list[dict[str, float]]() for method in METHODS} for count in counts}
    for _ in range(repetitions):
        for count in counts:
            for method in METHODS:
                found[count][method].append(run_once(method, count, values))
                print(f"  {count} updates, {method}: {found[count][method][-1]}", flush=True)
    goals = [goal for count in counts for goal in _time_goals(count, found[count])]
    if len(counts) > 1:
        goals.append(_memory_goal(found, counts))
    kept = {"machine": before, "results": found, "goals": [goal.to_plain() for goal in goals]}
    return [_table(found), goals_table(goals)], kept | {"repetitions": repetitions, "values": values}


def _table(found: dict[int, dict[str, list[dict[str, float]]]]) -> str:
    rows = [
        [
            str(count),
            method,
            spread([each["ms_per_update"] for each in runs], 1),
            spread([each["peak_mb"] for each in runs], 0),
        ]
        for count, methods in found.items()
        for method, runs in methods.items()
    ]
    return markdown(["updates", "method", "CPU ms an update", "peak RSS over start MB"], rows)


def _time_goals(count: int, found: dict[str, list[dict[str, float]]]) -> list[Goal]:
    times = {method: [each["ms_per_update"] for each in runs] for method, runs in found.items()}
    return [
        Goal(f"{count} updates: CPU, ours / flwr FedAvg", ratios(times[OURS], times[FLOWER]), 1.0),
        Goal(f"{count} updates: CPU, ours / torch add_", ratios(times[OURS], times[BARE]), 6.0),
    ]


def _memory_goal(found: dict[int, dict[str, list[dict[str, float]]]], counts: Sequence[int]) -> Goal:
    few, many = ([each["peak_mb"] for each in found[count][OURS]] for count in (min(counts), max(counts)))
    differences = tuple(above - below for above, below in zip(many, few, strict=True))
    text = f"peak memory of ours, {max(counts)} minus {min(counts)} updates"
    return Goal(text, differences, _NOISE_MB, unit="MB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 and 4 updates of 4 MB")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        method, count, values, result = chosen.child
        child(method, int(count), int(values), Path(result))
        return
    counts, values = ([2, 4], 1_000_000) if chosen.quick else ([8, 64], VALUES)
    sections, plain = run_all(counts, values, 1 if chosen.quick else chosen.repetitions)
    report("Aggregation", sections, plain, chosen.out)


if __name__ == "__main__":
    main()
