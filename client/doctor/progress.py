"""What is being checked at the moment: a line that changes on a terminal, a line now and then elsewhere."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from fedcad.client.doctor.check import Check, Tell

PATIENCE_S = 5.0
"""Seconds of silence after which a line is written where there is no terminal."""


class Progress:
    """Shows which check is at work, and how far it is. Used with ``with``, around all checks."""

    def __init__(self, console: Console, patience_s: float = PATIENCE_S) -> None:
        """Show on a console, that of standard error: the report alone goes to standard output."""
        self._console = console
        self._patience_s = patience_s
        self._status: Status | None = None
        self._text = ""
        self._changed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def __call__(self, check: Check) -> Tell:
        """Announce a check; return whom it tells how far it is."""
        self._show(f"checking {check.name}", starts=True)
        return lambda text: self._show(f"checking {check.name}: {text}")

    def _show(self, text: str, *, starts: bool = False) -> None:
        self._text = text
        if starts:
            self._changed = time.monotonic()
        if self._status is not None:
            self._status.update(f"{escape(text)} …")

    def _speak(self) -> None:
        """Write a line whenever one check has lasted a while longer."""
        while not self._over.wait(self._patience_s):
            if time.monotonic() - self._changed >= self._patience_s:
                self._console.print(f"{self._text} …", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Progress":
        """Start showing."""
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing; nothing stays on a terminal."""
        self._over.set()
        if self._status is not None:
            self._status.stop()
        else:
            self._thread.join()
