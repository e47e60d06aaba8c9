"""What is going on in a study, put together from its folder: the view behind status, metrics and alerts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from fedcad.server.live import WAITING, Live, SiteLive
from fedcad.server.participation import Status
from fedcad.server.printable import printable
from fedcad.server.study_folder import CheckpointFacts, ContractFacts, Outcome, StudyFolder, Wanted, Wish
from fedcad.shared.errors import CheckpointError

STOPPED_BY_HAND = "stopped by the coordinator"
"""Reason of a run that somebody stopped without saying why."""
Read = TypeVar("Read")


class State(StrEnum):
    """What a study is doing."""

    RUNNING = "running"
    WAITING = "waiting"
    """Its process lives and waits for sites."""
    STARTING = "starting"
    """It is wanted running; the coordinator is about to start its process, or to start it again."""
    INTERRUPTED = "interrupted"
    """It is wanted running, but the coordinator is not: it goes on when the coordinator is started."""
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    """It ended before its last round although nobody stopped it."""
    UNKNOWN = "unknown"
    """Its files cannot be read."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens unless somebody does something."""
        return self in (State.STOPPED, State.FINISHED, State.FAILED)


@dataclass(frozen=True)
class Miss:
    """Rounds in which a site did not count, for one reason."""

    status: str
    reason: str
    rounds: tuple[int, ...]


@dataclass(frozen=True)
class SiteView:
    """One site in one study.

    Attributes:
        name: Its name.
        live: What was last seen of it.
        rounds: How many closed rounds it counted, was late, lost, refused or rejected in, by status.
        misses: Why it did not count, in which rounds; the longest series first.
        missed_latest: Whether it did not count in the latest closed round.
    """

    name: str
    live: SiteLive
    rounds: Mapping[str, int]
    misses: tuple[Miss, ...] = ()
    missed_latest: bool = False


@dataclass(frozen=True)
class StudyView:
    """One study at one moment.

    Attributes:
        name: Name of the study.
        version: Version of its contract.
        state: What it is doing.
        wanted: What its operator wants: running, paused, stopped, or empty where nobody said.
        wanted_since: Since when, in seconds since 1970; 0 if unknown.
        reason: Why it waits, stopped, failed or was paused; empty where there is nothing to say.
        until: When it gives up waiting, in seconds since 1970; None where there is no limit.
        waiting_for: Sites that it waits for.
        phase: What the round that is going on is at.
        round: Last closed round.
        current: Round that is going on, from 1; 0 where none is.
        rounds: Rounds of the study; 0 if unknown.
        quorum: Updates that a round needs.
        selected_version: Version whose parameters a result would have now.
        sites: Its sites by name.
        last_progress: When a round was last closed or a site heard of, in seconds since 1970; 0 if never.
        expires: When the contract ends, in seconds since 1970; None if unknown.
        bytes_sent: Bytes of parameters sent in closed rounds.
        bytes_received: Bytes of updates received in closed rounds.
        problems: What could not be read, in plain words.
    """

    name: str
    version: int
    state: State
    wanted: str = ""
    wanted_since: float = 0.0
    reason: str = ""
    until: float | None = None
    waiting_for: tuple[str, ...] = ()
    phase: str = ""
    round: int = 0
    current: int = 0
    rounds: int = 0
    quorum: int = 0
    selected_version: int = 0
    sites: tuple[SiteView, ...] = ()
    last_progress: float = 0.0
    expires: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    problems: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name and version as people are shown them."""
        return f"{self.name} v{self.version}"

    @property
    def incomplete(self) -> tuple[SiteView, ...]:
        """Sites that missed at least one closed round, the most absent first."""
        missed = [site for site in self.sites if site.misses]
        return tuple(sorted(missed, key=lambda site: (-_missed(site), site.name)))

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON; times in seconds since 1970."""
        return asdict(self)


@dataclass
class _Reader:
    """Reads what can be read of a folder, and keeps the reasons of what cannot."""

    folder: StudyFolder
    problems: list[str] = field(default_factory=list)

    def read(self, what: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return what()
        except CheckpointError as error:
            self.problems.append(str(error))
            return otherwise


@dataclass(frozen=True)
class _Files:
    """What a folder holds, read once."""

    wish: Wish | None
    outcome: Outcome | None
    live: Live
    contract: ContractFacts | None
    checkpoint: CheckpointFacts | None
    is_running: bool


def view_of(
    folder: StudyFolder, *, now: float, coordinator_runs: bool = True, trouble: str = ""
) -> StudyView:
    """Return what is going on in a study; never raises for damaged files, which become :attr:`problems`.

    Args:
        folder: The study's folder.
        now: Seconds since 1970.
        coordinator_runs: Whether the coordinator's supervisor lives, so that an idle study is about to start.
        trouble: Why the coordinator's last attempt to start it failed; empty if it did not.
    """
    reader = _Reader(folder)
    files = _read(reader)
    nothing: list[dict[str, Any]] = []
    events = reader.read(folder.events, nothing)
    settings = reader.read(folder.settings, None)
    seal = reader.read(folder.seal, None)
    closed = _latest_attempts(events)
    sites = _sites(settings.sites if settings else (), closed, files.live)
    state, reason = _state(files, coordinator_runs=coordinator_runs)
    if state is State.STARTING and trouble:
        reason = f"its process ended and is started again: {trouble}"
    expires = seal.expires_at() if seal else None
    if state in (State.STARTING, State.INTERRUPTED) and seal and expires is not None and expires <= now:
        state, reason = State.FAILED, f"its contract ended at {seal.expires}; amend the study"
    is_waiting = state is State.WAITING
    return StudyView(
        name=folder.name,
        version=folder.version,
        state=state,
        wanted=files.wish.wanted.value if files.wish else "",
        wanted_since=files.wish.since_when() if files.wish else 0.0,
        reason=reason,
        until=files.live.until if is_waiting else None,
        waiting_for=files.live.waiting_for if files.is_running else (),
        phase=files.live.phase if files.is_running else "",
        round=files.checkpoint.round if files.checkpoint else 0,
        current=_current(files),
        rounds=files.contract.rounds if files.contract else files.live.rounds,
        quorum=files.contract.quorum if files.contract else 0,
        selected_version=files.checkpoint.selected_version if files.checkpoint else 0,
        sites=sites,
        last_progress=_last_progress(folder, files),
        expires=expires,
        bytes_sent=_total(events, "bytes_sent"),
        bytes_received=_total(events, "bytes_received"),
        problems=tuple(reader.problems),
    )


def _read(reader: _Reader) -> _Files:
    folder = reader.folder
    return _Files(
        wish=reader.read(folder.wish, None),
        outcome=reader.read(folder.outcome, None),
        live=reader.read(folder.live, None) or Live(),
        contract=reader.read(folder.contract, None),
        checkpoint=reader.read(folder.checkpoint, None),
        is_running=reader.read(folder.is_running, False),
    )


def _state(files: _Files, *, coordinator_runs: bool) -> tuple[State, str]:
    """Return what a study is doing, and why."""
    if files.outcome and files.outcome.status == "completed":
        return State.FINISHED, ""
    if files.is_running:
        is_waiting = files.live.phase == WAITING
        return (State.WAITING if is_waiting else State.RUNNING), _live_reason(files)
    if files.contract is None:
        return State.UNKNOWN, "its contract cannot be read"
    return _idle_state(files, coordinator_runs=coordinator_runs)


def _idle_state(files: _Files, *, coordinator_runs: bool) -> tuple[State, str]:
    """Return the state of a study that no process runs."""
    ended = files.outcome.reason if files.outcome else ""
    if files.wish is None:
        return (State.FAILED, ended) if files.outcome else (State.STOPPED, "it was never started")
    if files.wish.wanted is Wanted.PAUSED:
        return State.PAUSED, files.wish.reason or ended
    if files.wish.wanted is Wanted.STOPPED:
        # A run that gives up stops itself, and says why in both places.
        gave_up = ended == files.wish.reason and ended not in ("", STOPPED_BY_HAND)
        return State.FAILED if gave_up else State.STOPPED, files.wish.reason or ended
    if not coordinator_runs:
        return State.INTERRUPTED, "the coordinator is not running"
    return State.STARTING, ""


def _live_reason(files: _Files) -> str:
    """Return why a living study waits, or that it is about to do what was asked of it."""
    if files.wish and files.wish.wanted is not Wanted.RUNNING:
        asked = f"to be {files.wish.wanted.value} after this round"
        return f"{asked}; {files.live.reason}" if files.live.reason else asked
    return files.live.reason


def _current(files: _Files) -> int:
    """Return the round that is going on; live state may be a second behind the checkpoint."""
    if not files.is_running:
        return 0
    closed = files.checkpoint.round if files.checkpoint else 0
    rounds = files.contract.rounds if files.contract else 0
    return min(max(files.live.round, closed + 1), rounds or closed + 1)


def _latest_attempts(events: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Return the participation of every closed round, by its last attempt."""
    return {
        int(event["round"]): list(event["participation"]) for event in events if event["event"] == "round"
    }


def _sites(
    enrolled: Sequence[str], closed: Mapping[int, Sequence[Mapping[str, Any]]], live: Live
) -> tuple[SiteView, ...]:
    parts: dict[str, dict[int, Mapping[str, Any]]] = {name: {} for name in (*enrolled, *live.sites)}
    for number, participation in sorted(closed.items()):
        for part in participation:
            parts.setdefault(str(part.get("site", "?")), {})[number] = part
    latest = max(closed, default=0)
    return tuple(
        _site(name, found, live.sites.get(name, SiteLive()), latest=latest)
        for name, found in sorted(parts.items())
    )


def _site(name: str, parts: Mapping[int, Mapping[str, Any]], live: SiteLive, *, latest: int) -> SiteView:
    counts = Counter(str(part.get("status", "?")) for part in parts.values())
    missed: dict[tuple[str, str], list[int]] = {}
    for number, part in parts.items():
        status = str(part.get("status", "?"))
        if status != Status.COUNTED:
            missed.setdefault((status, printable(str(part.get("reason", "")))), []).append(number)
    misses = [Miss(status, reason, tuple(rounds)) for (status, reason), rounds in missed.items()]
    return SiteView(
        name=name,
        live=live,
        rounds={status.value: counts[status.value] for status in Status},
        misses=tuple(sorted(misses, key=lambda miss: -len(miss.rounds))),
        missed_latest=any(latest in miss.rounds for miss in misses),
    )


def _missed(site: SiteView) -> int:
    return sum(len(miss.rounds) for miss in site.misses)


def _last_progress(folder: StudyFolder, files: _Files) -> float:
    """Return when the study last moved: a checkpoint was written, or a site was heard of."""
    contacts = [site.last_contact for site in files.live.sites.values() if site.last_contact is not None]
    saved = 0.0
    if files.checkpoint is not None:
        saved = modified(folder.path / "checkpoints" / f"{files.checkpoint.name}.json")
    return max([saved, *contacts])


def modified(path: Path) -> float:
    """Return when a file was last written, in seconds since 1970; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _total(events: Iterable[Mapping[str, Any]], key: str) -> int:
    values = (event.get(key, 0) for event in events)
    return sum(value for value in values if isinstance(value, int))
