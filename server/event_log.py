"""The run's log of rounds, one JSON object a line, never half a line ahead of the checkpoint."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedcad.shared.atomic_files import sync_folder
from fedcad.shared.errors import CheckpointError

Event = Mapping[str, Any]
Observer = Callable[[Event], None]


class EventLog:
    """Appends events to a file and shows them to an observer.

    Why truncate: after kill -9 the file may hold events of a round that was never closed; a resumed run cuts
    them off, so that the log always tells one consistent story.
    """

    def __init__(self, path: Path, observe: Observer | None = None) -> None:
        """Use a file, made on the first event."""
        self._path = path
        self._observe = observe

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` lines, by shortening the file: an interruption cannot lose them.

        Raises:
            CheckpointError: There are fewer whole lines; nothing is changed.
        """
        with self._path.open("a+b") as stream:
            stream.seek(0)
            lengths = [len(line) for line in stream if line.endswith(b"\n")]
            if len(lengths) < count:
                raise CheckpointError(
                    f"{self._path} has {len(lengths)} whole lines; the checkpoint needs {count}. "
                    "Restore the file, or start the run anew in another folder"
                )
            stream.truncate(sum(lengths[:count]))
            os.fsync(stream.fileno())
        sync_folder(self._path.parent)

    def append(self, event: Event) -> None:
        """Write one event durably, then show it."""
        with self._path.open("ab") as stream:
            stream.write(json.dumps(event, allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.show(event)

    def show(self, event: Event) -> None:
        """Show a passing event, for instance that a site answered, without writing it."""
        if self._observe is not None:
            self._observe(event)
