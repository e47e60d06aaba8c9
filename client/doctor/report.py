"""The list as people and programs read it: a table on a terminal, plain lines elsewhere, JSON on request."""

import json
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcad.client.doctor.check import Result, Verdict, problems
from fedcad.shared.version import __version__

FORMAT = 1
"""Raised when a program that reads the JSON would misread it."""
_MARKS = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARNING: ("!", "bold yellow"),
    Verdict.FAILED: ("✗", "bold red"),
    Verdict.SKIPPED: ("-", "dim"),
}
_WORDS = {
    Verdict.OK: "ok",
    Verdict.WARNING: "WARNING",
    Verdict.FAILED: "FAILED",
    Verdict.SKIPPED: "-",
}
_PLAIN_WIDTH = 78
_WIDEST = 110
_MARGIN = 23


def is_go(results: Sequence[Result]) -> bool:
    """Whether nothing failed."""
    return problems(results) == 0


def verdict_line(results: Sequence[Result]) -> str:
    """Return the last line."""
    failures, warnings = problems(results), problems(results, Verdict.WARNING)
    if failures:
        return f"NO-GO: {_count(failures, 'problem')}"
    return f"GO: {_count(warnings, 'warning')}" if warnings else "GO"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def print_report(results: Sequence[Result], console: Console, notes: Sequence[str] = ()) -> None:
    """Print the list, notes below it, and the verdict.

    Args:
        results: In order; those of a group stand together.
        console: Where to; not a terminal: plain lines of at most 78 columns.
        notes: Sentences for the reader.
    """
    if not console.is_terminal:
        console.file.write(plain_report(results, notes))
        return
    for group, members in groupby(results, key=lambda result: result.check.group):
        console.print(Text(group, style="bold"))
        console.print(_table(list(members)), width=min(console.width, _WIDEST))
    for note in notes:
        console.print(Text(note, style="dim"))
    style = "bold green" if is_go(results) else "bold red"
    console.print(Text(verdict_line(results), style=style))


def _table(results: Sequence[Result]) -> Table:
    """Return one group: mark, name, and below each other what was found and what to do."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3, justify="right", no_wrap=True)
    table.add_column(width=11, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for result in results:
        mark, style = _MARKS[result.finding.verdict]
        text = Text(_found(result), style="dim" if result.finding.verdict is Verdict.SKIPPED else "")
        if result.finding.remedy:
            text.append(f"\n→ {result.finding.remedy}", style="cyan")
        table.add_row(Text(mark, style=style), result.check.name, text)
    return table


def _found(result: Result) -> str:
    if result.finding.verdict is Verdict.SKIPPED:
        return f"not checked: {result.finding.found}"
    return result.finding.found


def plain_report(results: Sequence[Result], notes: Sequence[str] = ()) -> str:
    """Return the same as plain ASCII-ruled text for logs and pipes."""
    lines: list[str] = []
    for group, members in groupby(results, key=lambda result: result.check.group):
        lines.append(group)
        for result in members:
            first = f"  {_WORDS[result.finding.verdict]:<8} {result.check.name:<11} "
            lines += _wrap(_found(result), first, " " * _MARGIN)
            if result.finding.remedy:
                lines += _wrap(result.finding.remedy, f"{' ' * _MARGIN}-> ", " " * (_MARGIN + 3))
    for note in notes:
        lines += _wrap(note, "", "")
    return "\n".join([*lines, verdict_line(results), ""])


def _wrap(text: str, first: str, following: str) -> list[str]:
    """Break at blanks only, so that a path or an address stays whole."""
    lines: list[str] = []
    for part in text.split("\n"):
        lines += textwrap.wrap(
            part,
            _PLAIN_WIDTH,
            initial_indent=following if lines else first,
            subsequent_indent=following,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def json_report(results: Sequence[Result]) -> str:
    """Return the list for programs."""
    plain: dict[str, Any] = {
        "format": FORMAT,
        "fedcad": __version__,
        "go": is_go(results),
        "problems": problems(results),
        "warnings": problems(results, Verdict.WARNING),
        "checks": [
            {
                "group": result.check.group,
                "name": result.check.name,
                "verdict": str(result.finding.verdict),
                "found": result.finding.found,
                "remedy": result.finding.remedy,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
