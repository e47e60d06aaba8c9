"""Figures of interleaved repetitions: median [min-max], tables in Markdown, JSON files."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A goal beside its figure.

    Attributes:
        text: What is compared, in words.
        found: Figure of each repetition.
        limit: What the median must reach.
        is_least: True where larger is better.
        unit: Behind the figures, for instance ``×``.
    """

    text: str
    found: tuple[float, ...]
    limit: float
    is_least: bool = False
    unit: str = "×"

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the limit."""
        median = statistics.median(self.found)
        return median >= self.limit if self.is_least else median <= self.limit

    def to_plain(self) -> dict[str, Any]:
        """Return the goal as plain data."""
        return {
            "text": self.text,
            "found": list(self.found),
            "median": statistics.median(self.found),
            "limit": self.limit,
            "at_least": self.is_least,
            "unit": self.unit,
            "met": self.is_met,
        }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write median [min-max]; one value stands alone."""
    if not values:
        return "-"
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """Divide repetition by repetition: both figures of one ratio were taken next to each other."""
    return tuple(above / below for above, below in zip(numerators, denominators, strict=True))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goals_table(goals: Sequence[Goal]) -> str:
    """Return the goals with their figures and whether they are met."""
    rows = [
        [
            goal.text,
            f"{spread(goal.found)} {goal.unit}",
            f"{'≥' if goal.is_least else '≤'} {goal.limit:g} {goal.unit}",
            "met" if goal.is_met else "**falls short**",
        ]
        for goal in goals
    ]
    return markdown(["figure", "found", "goal", ""], rows)


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    name = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    load = _lines("/proc/loadavg")[0].split()[:1] if _lines("/proc/loadavg") else []
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / 2**20, 1),
        "python": platform.python_version(),
        "load_at_start": float(load[0]) if load else None,
        "versions": {name: version(name) for name in ("fedcad", "torch", "flwr", "numpy", "ray")},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def report(title: str, sections: Sequence[str], plain: dict[str, Any], out: Path | None) -> None:
    """Print a benchmark's tables and write its JSON file."""
    text = "\n\n".join(sections)
    print(f"# {title}\n\n{text}")
    if out is not None:
        out.write_text(json.dumps({"title": title, "text": text, **plain}, indent=1) + "\n", encoding="utf-8")
