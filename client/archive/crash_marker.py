"""Remembers which case was being decoded when the process died, so that one file cannot stop a site for good.

Why: image decoders are C++; on some damaged input they end the process instead of raising. The next process
would meet the same file and die again.
"""

import json
import os
from pathlib import Path

PATIENCE = 3
"""Deaths after which a case is left out: a person who stops the site twice must not lose a case."""


class CrashMarker:
    """A small file that names the case in work. Used under the cache's lock, by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier process left behind; the file must exist."""
        self._path = path
        self._case_id, self._deaths = _read(path)
        self._descriptor = -1

    def __enter__(self) -> "CrashMarker":
        """Open the file."""
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is in work any more; also after an exception, which is no death."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def is_deadly(self, case_id: str) -> bool:
        """Return whether processes died over this case as often as patience lasts."""
        return case_id == self._case_id and self._deaths >= PATIENCE

    def enter(self, case_id: str) -> None:
        """Note that work on a case begins.

        Not synced to disk: the page cache survives the process, and a power cut is no fault of the case.
        """
        deaths = self._deaths + 1 if case_id == self._case_id else 1
        content = json.dumps([case_id, deaths]).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


def _read(path: Path) -> tuple[str, int]:
    """Return the case in work when the last process died, and how often that happened; else nothing."""
    try:
        case_id, deaths = json.loads(path.read_bytes())
        return str(case_id), int(deaths)
    except (ValueError, TypeError):
        return "", 0
