"""The fault matrix: real processes over TLS on loopback, killed, cut off, starved, misdated and refused.

``python tests/fault_matrix.py [SCENARIO …]`` runs it alone; ``make verify`` runs it and keeps its table.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deployed_study import reference
from faults import disks, entrance, kills, networks, operations
from faults.table import FAILED, LEFT_OUT, AbandonedError, Bench, Table

SCENARIOS: tuple[Callable[[Bench], None], ...] = (
    *kills.SCENARIOS,
    *networks.SCENARIOS,
    *disks.SCENARIOS,
    *entrance.SCENARIOS,
    *operations.SCENARIOS,
)
ROUNDS = 3
EXPLANATION = (
    "A coordinator and three hospitals as processes of their own on one machine, over TLS; a phantom study",
    f"of {ROUNDS} rounds. Rows of one study follow each other; its last row says how the study ended. Its",
    "model is compared with that of the same study run undisturbed in one process, and its log line by line:",
    "who counted, with which weight, in which attempt, with which metrics. Seconds are those of the row.",
)
__all__ = ["EXPLANATION", "FAILED", "LEFT_OUT", "run"]


def run(folder: Path, chosen: set[str]) -> Table:
    """Run all scenarios, or those that are named, one after the other."""
    table, archives = Table(), folder / "archives"
    bench = Bench(folder, archives, table)
    wanted = [each for each in SCENARIOS if not chosen or each.__name__ in chosen]
    for name, quorum, rounds in (("strict", 3, ROUNDS), ("lenient", 2, 4 * ROUNDS)):
        participation = {"quorum": quorum, "deadline_s": 600.0}
        bench.runs[name] = reference(
            folder / name, archives, rounds=rounds, epochs=300, participation=participation
        )
    for scenario in wanted:
        sys.stdout.write(f"{scenario.__name__}: {scenario.__doc__}\n")
        try:
            scenario(bench)
        except AbandonedError:
            continue
        except AssertionError as error:
            table.fail(str(scenario.__doc__), str(error))
    return table


def main() -> int:
    """Run what was asked for and print the table; fail if a row failed."""
    folder = Path(tempfile.mkdtemp(prefix="fedcad-faults-"))
    sys.stdout.write(f"folders and logs of all rows stay in {folder}\n")
    table = run(folder, set(sys.argv[1:]))
    sys.stdout.write("\n".join(table.lines()) + "\n")
    return 0 if all(row.result != FAILED for row in table.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
