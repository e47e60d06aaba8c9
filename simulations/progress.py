"""What the terminal shows while a simulation runs: bars on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from fedcad.server.event_log import Observer

_LINE_EVERY_S = 5.0
_LINE_STILL_S = 60.0
"""Seconds after which a line is printed although nothing was finished since the last one."""


class Display(Protocol):
    """Shows how far the parts of a simulation are."""

    def update(self, part: str, done: int, total: int | None, detail: str = "") -> None:
        """Show that ``done`` of ``total`` steps of a part are done; None: nobody knows how many there are."""
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
    """Progress bars of what is going on; a part that is done becomes a line that stays."""

    def __init__(self, console: Console) -> None:
        """Use a terminal."""
        # The detail gets what the others leave, so that no detail squeezes the bar away.
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False, table_column=rest),
            console=console,
            refresh_per_second=4,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._done: set[str] = set()
        self._lock = threading.Lock()

    def update(self, part: str, done: int, total: int | None, detail: str = "") -> None:
        """Move a part's bar, made when first needed."""
        with self._lock:
            is_done = done == total
            if is_done and part in self._done:
                return
            if part not in self._tasks:
                self._done.discard(part)
                self._tasks[part] = self._progress.add_task(part, total=total, detail=detail)
            self._progress.update(self._tasks[part], completed=done, total=total, detail=detail)
            if is_done:
                self._finish(part, done, detail)

    def _finish(self, part: str, done: int, detail: str) -> None:
        """Replace a bar by a line."""
        task_id = self._tasks.pop(part)
        seconds = next(task.elapsed for task in self._progress.tasks if task.id == task_id) or 0.0
        self._progress.remove_task(task_id)
        self._progress.refresh()
        self._done.add(part)
        self.say(f"{part}: {done}/{done} in {_duration(seconds)}{'  ' + detail if detail else ''}")

    def say(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(Text(text), soft_wrap=True)

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
        self._last: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def update(self, part: str, done: int, total: int | None, detail: str = "") -> None:
        """Print a line unless the part's last one is too recent, or says the same."""
        with self._lock:
            when, shown = self._last.get(part, (-_LINE_STILL_S, -1))
            now = time.monotonic()
            pause = _LINE_EVERY_S if done != shown else _LINE_STILL_S
            is_end = done != shown and done in (0, total)
            if not is_end and now - when < pause:
                return
            self._last[part] = (now, done)
        count = f"{done}/{total}" if total is not None else str(done or "")
        self.say("  ".join(text for text in (f"{part}: {count}".rstrip(": "), detail) if text))

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def __enter__(self) -> "Lines":
        """Return the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
            detail = f"{event['site']} ({answered['count']}/{answered['sites']})"
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
