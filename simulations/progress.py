"""What the terminal shows while a simulation runs: bars on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedcad.server.event_log import Observer

_LINE_EVERY_S = 5.0


class Display(Protocol):
    """Shows how far the parts of a simulation are."""

    def update(self, part: str, done: int, total: int, detail: str = "") -> None:
        """Show that ``done`` of ``total`` steps of a part are done."""
        ...

    def say(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def __enter__(self) -> "Display":
        """Start showing."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        ...


class Bars:
    """Progress bars."""

    def __init__(self, console: Console) -> None:
        """Use a terminal."""
        self._progress = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def update(self, part: str, done: int, total: int, detail: str = "") -> None:
        """Move a part's bar, made when first needed."""
        with self._lock:
            if part not in self._tasks:
                self._tasks[part] = self._progress.add_task(part, total=total, detail=detail)
            self._progress.update(self._tasks[part], completed=done, total=total, detail=detail)

    def say(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Bars":
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


class Lines:
    """Plain lines: the start and end of each part, and one every few seconds in between."""

    def __init__(self) -> None:
        """Print to standard output."""
        self._last: dict[str, float] = {}

    def update(self, part: str, done: int, total: int, detail: str = "") -> None:
        """Print a line unless the part's last one is too recent."""
        now = time.monotonic()
        if done < total and now - self._last.get(part, -_LINE_EVERY_S) < _LINE_EVERY_S:
            return
        self._last[part] = now
        self.say(f"{part}: {done}/{total}{'  ' + detail if detail else ''}")

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def __enter__(self) -> "Lines":
        """Return the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def make_display(console: Console) -> Bars | Lines:
    """Return bars for a terminal and lines for anything else."""
    return Bars(console) if console.is_terminal else Lines()


def follow(display: Display, part: str, rounds: int) -> Observer:
    """Return an observer that shows a run's rounds, sites and validation on a display."""
    answered: dict[str, Any] = {"count": 0, "sites": 1, "last": ""}

    def observe(event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "started":
            answered.update(count=0, sites=max(len(event["sites"]), 1))
            display.update(part, event["round"] - 1, rounds, answered["last"])
        elif kind == "answered" and event["round"]:
            answered["count"] += 1
            detail = f"{event['site']} {event['status']} ({answered['count']}/{answered['sites']})"
            if event["status"] != "counted":
                display.say(
                    f"  {part}, round {event['round']}: {event['site']} {event['status']}: {event['reason']}"
                )
            display.update(part, event["round"] - 1, rounds, f"{answered['last']}  {detail}".strip())
        elif kind == "validation":
            answered["last"] = _validation(event)
        elif kind == "round":
            display.update(part, event["round"], rounds, answered["last"])

    return observe


def _validation(event: Mapping[str, Any]) -> str:
    union = event["union"]
    auroc = union.get("macro_auroc")
    return f"validation loss {union['loss']:.3f}" + (f", AUROC {auroc:.3f}" if auroc is not None else "")
