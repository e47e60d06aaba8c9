"""Sees to it that every study that is wanted running has one run of Flower, and only one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedcad.server.flower_control import FINISHED, RunStatus
from fedcad.server.study_folder import StudyFolder, all_studies
from fedcad.shared.errors import CheckpointError

GRACE_S = 60.0
"""How long a run may take until its process holds the study's lock."""
HEALTHY_S = 60.0
LONGEST_DELAY_S = 300.0
_FIRST_DELAY_S = 1.0


class Control(Protocol):
    """The part of :class:`~fedcad.server.flower_control.FlowerControl` that is needed."""

    def start_run(self, run_directory: Path) -> int:
        """Start a run."""

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""

    def run(self, run_id: int) -> RunStatus | None:
        """Return a run."""

    def runs(self) -> list[RunStatus]:
        """Return the newest runs."""


@dataclass
class _Watch:
    run_id: int | None = None
    started: float = 0.0
    running_since: float | None = None
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""


def run_delay(failures: int) -> float:
    """Return the seconds before the next run after so many failures in a row (1, 2, 4 … 300)."""
    return min(LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(max(failures, 1) - 1, 20))


class StudyRuns:
    """The runs of all studies of a consortium.

    What runs is known by the lock that the run's process holds on its study's folder, not by what Flower
    believes: Flower takes half a minute to notice a killed process, and remembers runs that a crash ended.
    """

    def __init__(
        self, studies: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look after the studies below a folder.

        Args:
            studies: ``CONSORTIUM/studies``.
            say: Told in a line what was done.
            clock: Seconds that never go back.
        """
        self._studies = studies
        self._say = say
        self._clock = clock
        self._watches: dict[Path, _Watch] = {}
        self._unreadable: dict[Path, str] = {}
        self._has_cleared = False

    def step(self, control: Control) -> None:
        """Start, replace and give up runs.

        Raises:
            ProtocolError: The SuperLink does not answer; call again later.
        """
        if not self._has_cleared:
            # Whoever ran these died with the supervisor before.
            for run in control.runs():
                if run.status != FINISHED:
                    control.stop_run(run.run_id)
            self._has_cleared = True
        for folder in all_studies(self._studies):
            self._look_after(folder, control)

    def _look_after(self, folder: StudyFolder, control: Control) -> None:
        now = self._clock()
        try:
            is_running, is_needed = folder.is_running(), folder.needs_a_run()
        except CheckpointError as error:
            if self._unreadable.get(folder.path) != str(error):
                self._unreadable[folder.path] = str(error)
                self._say(f"{folder.title}: {error}")
            return
        self._unreadable.pop(folder.path, None)
        watch = self._watches.setdefault(folder.path, _Watch())
        if is_running:
            self._note_running(watch, now)
        elif is_needed:
            self._replace(folder, watch, control)
        elif watch.run_id is not None:
            control.stop_run(watch.run_id)
            self._watches.pop(folder.path)

    @staticmethod
    def _note_running(watch: _Watch, now: float) -> None:
        watch.running_since = now if watch.running_since is None else watch.running_since
        if now - watch.running_since >= HEALTHY_S:
            watch.failures, watch.reason = 0, ""

    def _replace(self, folder: StudyFolder, watch: _Watch, control: Control) -> None:
        now = self._clock()
        if watch.run_id is not None:
            if self._is_starting(watch, control, now):
                return
            self._give_up(folder, watch, control)
        if now >= watch.not_before:
            watch.run_id, watch.started, watch.running_since = control.start_run(folder.path), now, None
            self._say(f"{folder.title}: run {watch.run_id} started")

    @staticmethod
    def _is_starting(watch: _Watch, control: Control, now: float) -> bool:
        """Whether a run that has not taken the lock may yet do so."""
        if watch.run_id is None or watch.running_since is not None or now - watch.started >= GRACE_S:
            return False
        run = control.run(watch.run_id)
        return run is not None and run.status != FINISHED

    def _give_up(self, folder: StudyFolder, watch: _Watch, control: Control) -> None:
        now = self._clock()
        run = control.run(watch.run_id) if watch.run_id is not None else None
        if watch.run_id is not None:
            control.stop_run(watch.run_id)
        watch.failures += 1
        watch.reason = run.details if run and run.status == FINISHED else "its process ended"
        delay = run_delay(watch.failures)
        self._say(f"{folder.title}: run {watch.run_id} is over ({watch.reason}); again in {delay:g} s")
        watch.run_id, watch.not_before = None, now + delay

    def state(self) -> dict[str, dict[str, object]]:
        """Return plain data of every study that has or had a run here, by the study's folder."""
        return {
            f"{path.parent.name}/{path.name}": {
                "run_id": None if watch.run_id is None else str(watch.run_id),
                "failures": watch.failures,
                "reason": watch.reason,
            }
            for path, watch in self._watches.items()
        }
