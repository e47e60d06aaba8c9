"""The rows of the fault matrix: what was done, when, what must hold afterwards, and whether it did."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tiny_study

PASSED, FAILED, LEFT_OUT = "passed", "**failed**", "left out"
_LONGEST = 400
_WORDS = 6000


@dataclass
class FaultRow:
    """One row."""

    done: str
    when: str
    holds: str
    result: str = PASSED
    measured: str = ""
    seconds: float = 0.0


class AbandonedError(Exception):
    """A row failed; what follows in its study means nothing."""


@dataclass
class Table:
    """All rows, printed as they come."""

    rows: list[FaultRow] = field(default_factory=list)

    @contextmanager
    def row(self, done: str, when: str, holds: str) -> Iterator[FaultRow]:
        """Time a block as one row.

        Raises:
            AbandonedError: Something does not hold.
        """
        row, started = FaultRow(done, when, holds), time.monotonic()
        try:
            yield row
        except AssertionError as error:
            row.result, row.measured = FAILED, str(error)
            self._add(row, started)
            raise AbandonedError(str(error)) from error
        self._add(row, started)

    def fail(self, done: str, reason: str) -> None:
        """Note what failed between two rows."""
        self._add(FaultRow(done, "", "", FAILED, reason), time.monotonic())

    def leave_out(self, done: str, reason: str) -> None:
        """Note what cannot be tried on this machine."""
        self._add(FaultRow(done, "", "", LEFT_OUT, reason), time.monotonic())

    def _add(self, row: FaultRow, started: float) -> None:
        row.seconds = time.monotonic() - started
        sys.stdout.write(
            f"  {row.result}  {row.done}, {row.when}: {row.measured[:_WORDS]} ({row.seconds:.0f} s)\n"
        )
        sys.stdout.flush()
        self.rows.append(row)

    def lines(self) -> list[str]:
        """Return the table as Markdown."""
        return [
            "| what is done | when | what holds afterwards | result | measured | seconds |",
            "|---|---|---|---|---|---|",
            *(
                "| "
                + " | ".join(
                    text.replace("\n", " ").replace("|", "/")[:_LONGEST]
                    for text in (
                        row.done,
                        row.when,
                        row.holds,
                        row.result,
                        row.measured,
                        f"{row.seconds:.0f}",
                    )
                )
                + " |"
                for row in self.rows
            ),
        ]


@dataclass(frozen=True)
class Bench:
    """What the scenarios share: a folder, the emulated hospitals, undisturbed runs, the table."""

    folder: Path
    archives: Path
    table: Table
    runs: dict[str, tiny_study.Simulated] = field(default_factory=dict)
