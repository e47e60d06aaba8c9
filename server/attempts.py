"""How often the coordinator began anew from an older state, as sites count it.

A site answers plans in the order of (attempt, round) and each of them with one answer only. A coordinator
that was restored from a backup asks for rounds that sites have closed; they refuse, and only a counted, new
attempt makes them answer again. So nothing is asked twice silently.
"""

import json
from pathlib import Path

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import CheckpointError

MOST_NEW_ATTEMPTS = 3
"""New attempts for which one site may be the reason while a process runs; then it only counts as refusing."""
OUTDATED = frozenset({"closed-round", "other-plan"})
"""A site's objections to a plan of an attempt that is over."""


class Attempts:
    """The number of the present attempt, kept in a file."""

    def __init__(self, path: Path) -> None:
        """Read the number, 1 where there is no file.

        Raises:
            CheckpointError: The file is damaged.
        """
        self._path = path
        try:
            self.number = int(json.loads(path.read_bytes())["attempt"]) if path.exists() else 1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: the number of attempts cannot be read: {error}. Restore it from a backup; "
                "without it sites could be asked twice for one round unnoticed"
            ) from error

    def begin_another(self) -> None:
        """Count one more, durably, before any plan names it."""
        write_bytes(self._path, json.dumps({"attempt": self.number + 1}).encode())
        self.number += 1
