"""An alert when a study that should run does nothing: no round closed and no site heard of for too long."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from fedcad.server.study_folder import StudyFolder, Wanted, newest_studies
from fedcad.server.study_state import StudyView, view_of
from fedcad.server.study_wording import first_line, in_words
from fedcad.shared.process_log import ProcessLog

ALERT = "alert"
"""Level of an alert's line in the log."""


def quiet_for(view: StudyView, now: float, *, since: float = 0.0) -> float | None:
    """Return for how many seconds a study has done nothing, or None where it need not do anything.

    Args:
        view: The study.
        now: Seconds since 1970.
        since: Before this nothing is held against it: the coordinator had not been started.
    """
    if view.wanted != Wanted.RUNNING or view.state.has_ended:
        return None
    # A time to come, from before a clock was set back, counts as now.
    return now - min(max(view.last_progress, since, view.wanted_since), now)


@dataclass
class StallAlert:
    """Watches every study of a consortium; says once that one stalls, and once that it goes on.

    Attributes:
        studies: Folder of the studies.
        after_s: Seconds of quiet after which a study stalls.
        log: Where alerts and all-clears are written, at level ``alert`` and ``info``.
        started: When the coordinator was started, in seconds since 1970.
    """

    studies: Path
    after_s: float
    log: ProcessLog
    started: float = field(default_factory=time.time)
    _stalled: dict[Path, str] = field(default_factory=dict)

    @property
    def stalled(self) -> frozenset[str]:
        """Titles of the studies that stall, as of the last check."""
        return frozenset(self._stalled.values())

    def check(self, now: float) -> list[str]:
        """Return what is new since the last check: alerts and all-clears, each already in the log.

        Args:
            now: Seconds since 1970.
        """
        said = []
        folders = {folder.path: folder for folder in newest_studies(self.studies)}
        for path in [path for path in self._stalled if path not in folders]:
            said.append(self._clear(path, "is no longer the newest version"))
        for folder in folders.values():
            said += self._check(folder, now)
        return said

    def _check(self, folder: StudyFolder, now: float) -> list[str]:
        view = view_of(folder, now=now)
        quiet = quiet_for(view, now, since=self.started)
        is_stalled = quiet is not None and quiet >= self.after_s
        if is_stalled and folder.path not in self._stalled:
            return [self._alert(folder, first_line(view, now), quiet or 0.0)]
        if folder.path in self._stalled and not is_stalled:
            ended = view.state.has_ended or quiet is None
            return [self._clear(folder.path, f"is {view.state.value}" if ended else "goes on")]
        return []

    def _alert(self, folder: StudyFolder, line: str, quiet: float) -> str:
        text = (
            f"STALLED {line}. No round was closed and no site heard of for {in_words(quiet)}. "
            "See: fedcad server logs"
        )
        self._stalled[folder.path] = folder.title
        self.log.write(text, ALERT)
        return text

    def _clear(self, path: Path, why: str) -> str:
        text = f"ALL CLEAR {self._stalled.pop(path)}: it {why}"
        self.log.write(text)
        return text
