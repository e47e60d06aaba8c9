"""What a run does between its rounds: whether it goes on, and whether it waits where sites are missing."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

PAUSE_S = 10.0
"""Between two tries of a round below its quorum."""


class Conduct(Protocol):
    """Asked between rounds."""

    def goes_on(self) -> bool:
        """Whether the next round may start; False ends the process's part, with everything saved."""
        ...

    def closed(self) -> None:
        """Note that a round was closed and saved."""
        ...

    def waits(self, reason: str, missing: Sequence[str]) -> bool:
        """Wait a while for sites after a missed quorum; False where the run stops instead."""
        ...


class AtOnce:
    """A simulation: every round follows at once, and nobody comes back by waiting."""

    def goes_on(self) -> bool:
        """Return True."""
        return True

    def closed(self) -> None:
        """Note nothing."""

    def waits(self, reason: str, missing: Sequence[str]) -> bool:
        """Return False."""
        del reason, missing
        return False


class Patient:
    """A real study: goes on while that is wanted, and waits below its quorum up to a limit."""

    def __init__(
        self,
        is_wanted: Callable[[], bool],
        show: Callable[[str, Sequence[str], float], None],
        *,
        wait_s: float,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set the limits.

        Args:
            is_wanted: Whether the study is still wanted running.
            show: Told why it waits, for which sites, and until when (seconds since 1970).
            wait_s: Seconds after which waiting ends; they begin again once a round has closed.
            clock: Seconds since 1970, for what is shown.
            timer: Seconds that never go back and never jump: a clock that is set must not end a study.
            sleep: Waits so many seconds.
        """
        self._is_wanted = is_wanted
        self._show = show
        self._wait_s = wait_s
        self._clock = clock
        self._timer = timer
        self._sleep = sleep
        self._since: float | None = None

    def goes_on(self) -> bool:
        """Whether the study is wanted; asked before each try, so it also ends a pause in waiting."""
        return self._is_wanted()

    def closed(self) -> None:
        """Note that a round was closed."""
        self._since = None

    def waits(self, reason: str, missing: Sequence[str]) -> bool:
        """Show the reason and pause, unless the limit has passed."""
        now = self._timer()
        self._since = now if self._since is None else self._since
        left = self._since + self._wait_s - now
        if left <= 0:
            return False
        self._show(reason, list(missing), self._clock() + left)
        self._sleep(min(PAUSE_S, left))
        return True
