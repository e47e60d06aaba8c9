"""Reading the logs of a coordinator: the last lines of every process, and then what is added."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.errors import ConfigError
from fedcad.shared.process_log import read_log

Entry = dict[str, str]
_KEYS = ("time", "process", "level", "text")


@dataclass(frozen=True)
class Filter:
    """Which lines are wanted.

    Attributes:
        process: Those of one process; empty for all.
        site: Those that name a site; empty for all.
    """

    process: str = ""
    site: str = ""

    def takes(self, entry: Entry) -> bool:
        """Whether a line is wanted."""
        if not self.site:
            return True
        # A name within a longer one is another site: charite is not charite-2.
        return re.search(rf"(?<![\w.-]){re.escape(self.site)}(?![\w-])", entry["text"]) is not None


def processes_of(logs: Path) -> list[str]:
    """Return the names of the processes that have a log."""
    return sorted(path.name.removesuffix(".jsonl") for path in logs.glob("*.jsonl"))


def last_lines(logs: Path, wanted: Filter, count: int) -> list[Entry]:
    """Return the last wanted lines, by time, oldest first.

    Raises:
        ConfigError: There is no log of that process.
    """
    known = processes_of(logs)
    if wanted.process and wanted.process not in known:
        have = f"expected one of {', '.join(known)}" if known else "there are no logs yet"
        raise ConfigError(f"there is no log of a process {wanted.process!r}; {have}")
    found = [entry for entry in read_log(logs, wanted.process or None) if wanted.takes(entry)]
    return found[-count:] if count else []


class LogTail:
    """What is added to logs from now on, also across their replacement by new files."""

    def __init__(self, logs: Path, wanted: Filter) -> None:
        """Begin at the end of every log that exists."""
        self._logs = logs
        self._wanted = wanted
        self._places = {path: (_inode(path), path.stat().st_size) for path in self._files()}

    def new(self) -> list[Entry]:
        """Return the wanted lines that were added since the last time, by time."""
        entries = [entry for path in self._files() for entry in self._added(path)]
        return sorted(filter(self._wanted.takes, entries), key=lambda entry: entry["time"])

    def _files(self) -> list[Path]:
        name = self._wanted.process or "*"
        return sorted(self._logs.glob(f"{name}.jsonl"))

    def _added(self, path: Path) -> Iterator[Entry]:
        inode, place = self._places.get(path, (0, 0))
        try:
            with path.open("rb") as stream:
                if _inode(path) != inode:
                    yield from self._rest_of_the_old(path, inode, place)
                    inode, place = _inode(path), 0
                stream.seek(place)
                content = stream.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._places[path] = (inode, place + len(whole))
        yield from entries_in(whole.splitlines())

    @staticmethod
    def _rest_of_the_old(path: Path, inode: int, place: int) -> Iterator[Entry]:
        """Yield what was added to a file before it was renamed."""
        old = path.with_name(f"{path.name}.1")
        if old.exists() and _inode(old) == inode:
            with old.open("rb") as stream:
                stream.seek(place)
                yield from entries_in(stream.read().splitlines())


def entries_in(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the lines that are log lines."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and set(_KEYS) <= entry.keys():
            yield {key: str(entry[key]) for key in _KEYS}


def _inode(path: Path) -> int:
    return path.stat().st_ino
