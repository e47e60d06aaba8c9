"""What supervised processes print, as JSON lines in files of bounded size.

A line of a file is ``{"time", "process", "level", "text"}``: readable with any tool, whichever program wrote.
"""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LEVEL = re.compile(r"^(?:\S+T\S+Z )?(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b[ :]*(?:\[[\w.]+\] )?")
_LONGEST_CHARACTERS = 4000
_PRIVATE = 0o600
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
LARGEST_BYTES = 4 * 2**20
KEPT_FILES = 3
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


def split_level(line: str) -> tuple[str, str]:
    """Return a printed line's level in lower case (``info`` where it names none) and its text.

    Colours and other characters that would steer a terminal are removed: a log is read in terminals.
    """
    plain = "".join(letter for letter in _COLOUR.sub("", line) if letter.isprintable() or letter == "\t")
    found = _LEVEL.match(plain)
    if found is None:
        return "info", plain.strip()[:_LONGEST_CHARACTERS]
    level = {"WARN": "warning"}.get(found[1], found[1].lower())
    return level, plain[found.end() :].strip()[:_LONGEST_CHARACTERS]


class ProcessLog:
    """The log of one process: ``NAME.jsonl``, and older parts of it as ``NAME.jsonl.1`` and so on.

    Guarantees:
        The files together stay below ``kept + 1`` times ``largest_bytes`` plus one line. No error of the
        disk reaches the caller: a full disk must not stop what is being logged; lost lines are counted.
    """

    def __init__(
        self, folder: Path, process: str, *, largest_bytes: int = LARGEST_BYTES, kept: int = KEPT_FILES
    ) -> None:
        """Use a file in a folder that exists; nothing is opened yet."""
        self.path = folder / f"{process}.jsonl"
        self._process = process
        self._largest_bytes = largest_bytes
        self._kept = kept
        self.lost = 0
        self.problem = ""

    def write(self, text: str, level: str = "info", clock: Clock = _now) -> None:
        """Append one line."""
        time = clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"time": time, "process": self._process, "level": level, "text": text}
        content = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self._make_room(len(content))
            with os.fdopen(os.open(self.path, _APPEND, _PRIVATE), "ab") as stream:
                stream.write(content)
        except OSError as error:
            self.lost += 1
            self.problem = f"{self.path}: {error.strerror or error}; {self.lost} log lines were lost"

    def write_printed(self, line: str, clock: Clock = _now) -> tuple[str, str]:
        """Append what a process printed; return its level and text. Empty lines are dropped."""
        level, text = split_level(line)
        if text:
            self.write(text, level, clock)
        return level, text

    def _make_room(self, size: int) -> None:
        """Rename the files by one before the current one would become too large."""
        if not self.path.exists() or self.path.stat().st_size + size <= self._largest_bytes:
            return
        for number in range(self._kept, 0, -1):
            older = self._numbered(number)
            younger = self._numbered(number - 1) if number > 1 else self.path
            if younger.exists():
                younger.replace(older)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def read_log(folder: Path, process: str | None = None) -> list[dict[str, str]]:
    """Return the log lines of one process, or of all, by time, oldest first; torn lines are skipped."""
    pattern = f"{process}.jsonl*" if process else "*.jsonl*"
    entries: list[dict[str, str]] = []
    for path in sorted(folder.glob(pattern), key=_age, reverse=True):
        with path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and {"time", "process", "level", "text"} <= entry.keys():
                    entries.append(entry)
    return sorted(entries, key=lambda entry: str(entry["time"]))


def _age(path: Path) -> int:
    suffix = path.name.rpartition(".")[2]
    return int(suffix) if suffix.isdigit() else 0
