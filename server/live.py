"""What a running study says about itself this second: ``live.json``, for status, metrics and alerts.

Live state is not a result: it may be lost or late, and a full disk must not stop a study because of it.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcad.server.event_log import Event
from fedcad.server.printable import printable
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import CheckpointError

NAME = "live.json"
WAITING = "waiting for sites"
WRITE_EVERY_S = 1.0
_LARGEST_BYTES = 8 * 2**20

Clock = Callable[[], float]
Later = Callable[[float, Callable[[], None]], None]


@dataclass(frozen=True)
class SiteLive:
    """One site as the study last saw it.

    Attributes:
        phase: What it is doing, for instance ``training``.
        last_contact: When it last gave a sign of life, in seconds since 1970; None if never in this run.
        version: Version of FedCAD that it runs, as it said; empty if unknown.
        status: What became of its part in the current round: ``asked``, ``counted``, ``late``, …
        reason: Why, where it did not count.
    """

    phase: str = ""
    last_contact: float | None = None
    version: str = ""
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Live:
    """What ``live.json`` says.

    Attributes:
        updated: When it was written, in seconds since 1970.
        round: Round that is going on, from 1; 0 before the first and after the last.
        rounds: Rounds of the study; 0 if unknown.
        phase: What the study is doing.
        waiting_for: Sites that it waits for.
        reason: Why it waits, or empty.
        until: When it gives up waiting, in seconds since 1970; None where there is no limit.
        sites: Sites by name.
    """

    updated: float = 0.0
    round: int = 0
    rounds: int = 0
    phase: str = ""
    waiting_for: tuple[str, ...] = ()
    reason: str = ""
    until: float | None = None
    sites: Mapping[str, SiteLive] = field(default_factory=dict)


def read_live(path: Path) -> Live | None:
    """Return what a live file says, or None where there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        if not path.exists():
            return None
        with path.open("rb") as stream:
            return _from_plain(json.loads(stream.read(_LARGEST_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the live state cannot be read ({_short(error)}); the study writes it anew"
        ) from error


def _from_plain(plain: dict[str, Any]) -> Live:
    until = plain.get("until")
    return Live(
        updated=float(plain["updated"]),
        round=int(plain["round"]),
        rounds=int(plain["rounds"]),
        phase=printable(str(plain["phase"])),
        waiting_for=tuple(printable(str(site)) for site in plain["waiting_for"]),
        reason=printable(str(plain["reason"])),
        until=None if until is None else float(until),
        sites={printable(str(name)): _site_from_plain(site) for name, site in plain["sites"].items()},
    )


def _site_from_plain(plain: dict[str, Any]) -> SiteLive:
    contact = plain.get("last_contact")
    texts = {key: printable(str(plain.get(key, ""))) for key in ("phase", "version", "status", "reason")}
    return SiteLive(last_contact=None if contact is None else float(contact), **texts)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def _known_sites(path: Path) -> dict[str, dict[str, Any]]:
    """Return what an earlier process knew of the sites that outlives it."""
    try:
        live = read_live(path)
    except CheckpointError:
        return {}
    sites = live.sites.items() if live is not None else ()
    return {name: {"last_contact": site.last_contact, "version": site.version} for name, site in sites}


def _in_a_thread(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class LiveState:
    """Keeps ``live.json`` up to date: an observer of the event log that is also told of contacts and waits.

    Guarantees:
        Safe to call from any thread. The file is written at most once a second, and again at the end; what
        changes within that second is written when the second is over, even if nothing happens afterwards.
        An error of the disk is remembered in :attr:`problem` and never raised.
    """

    def __init__(
        self, path: Path, clock: Clock = time.time, *, rounds: int = 0, later: Later = _in_a_thread
    ) -> None:
        """Write that the study has begun to wait for its sites; when each was last heard of is kept.

        Args:
            path: The file, usually ``live.json`` in the study's folder.
            clock: Seconds since 1970.
            rounds: Rounds of the study.
            later: Calls a function after some seconds, in any thread.
        """
        self._path = path
        self._clock = clock
        self._later = later
        self._lock = threading.Lock()
        self._written: float | None = None
        self._is_due = False
        self._is_closed = False
        self._sites = _known_sites(path)
        self._plain: dict[str, Any] = {"round": 0, "rounds": rounds, "phase": WAITING, "waiting_for": []}
        self._plain |= {"reason": "", "until": None}
        self.problem = ""
        self._write()

    def observe(self, event: Event) -> None:
        """Follow one event of the study's log; an unknown kind only counts as a sign of life."""
        with self._lock:
            follow = {
                "started": self._started,
                "answered": self._answered,
                "round": self._closed,
                "last-validation": self._closed,
                "stopped": self._stopped,
            }.get(str(event.get("event")))
            if follow is not None:
                follow(event)
            self._changed()

    def contact(self, site: str, phase: str, version: str = "") -> None:
        """Note a sign of life of a site, with what it is doing."""
        with self._lock:
            entry = self._site(site)
            entry.update(phase=phase, last_contact=self._clock())
            if version:
                entry["version"] = version
            self._changed()

    def waiting(self, reason: str, sites: Iterable[str], until: float | None = None) -> None:
        """Note that the study waits: why, for whom, and when it gives up (seconds since 1970)."""
        with self._lock:
            self._plain.update(phase=WAITING, reason=reason, waiting_for=sorted(sites), until=until)
            self._changed()

    def close(self, phase: str = "") -> None:
        """Write the last state now; nothing is written afterwards.

        Args:
            phase: Last phase, for instance ``finished``; empty leaves what is.
        """
        with self._lock:
            if phase:
                self._plain.update(phase=phase)
            self._write()
            self._is_closed = True

    def _started(self, event: Event) -> None:
        sites = [str(site) for site in event["sites"]]
        if not self._waits_in_vain(sites):
            self._go_on(phase="training", waiting_for=sorted(sites))
        self._plain["round"] = int(event["round"])
        for entry in self._sites.values():
            entry.update(status="", reason="")
        for site in sites:
            self._site(site).update(phase="asked", status="asked")

    def _answered(self, event: Event) -> None:
        site, status = str(event["site"]), str(event["status"])
        entry = self._site(site)
        entry.update(phase="", status=status, reason=str(event.get("reason", "")))
        if status not in ("late", "lost"):
            entry["last_contact"] = self._clock()
        self._plain["waiting_for"] = [name for name in self._plain["waiting_for"] if name != site]
        if not self._plain["waiting_for"] and self._plain["phase"] == "training":
            self._plain["phase"] = "summing"

    def _closed(self, event: Event) -> None:
        self._go_on(phase="between rounds", round=int(event["round"]), waiting_for=[])
        for part in event.get("participation", ()):
            entry = self._site(str(part["site"]))
            entry.update(phase="", status=str(part["status"]), reason=str(part["reason"]))

    def _stopped(self, event: Event) -> None:
        if not self._waits_in_vain([]):
            self._go_on(phase="below quorum", reason=str(event.get("reason", "")), waiting_for=[])

    def _waits_in_vain(self, sites: Iterable[str]) -> bool:
        """Whether a wait goes on: a round is tried again, but none of those waited for is back."""
        is_waiting = self._plain["phase"] == WAITING and self._plain["reason"]
        return bool(is_waiting) and set(self._plain["waiting_for"]).isdisjoint(sites)

    def _go_on(self, **changes: Any) -> None:
        self._plain |= {"reason": "", "until": None} | changes

    def _site(self, name: str) -> dict[str, Any]:
        return self._sites.setdefault(name, {})

    def _changed(self) -> None:
        """Write now, or when a second has passed since the last time."""
        if self._is_closed or self._is_due:
            return
        since = None if self._written is None else self._clock() - self._written
        # A clock that was set back must not silence the study until it has caught up.
        if since is None or not 0 <= since < WRITE_EVERY_S:
            self._write()
            return
        self._is_due = True
        self._later(WRITE_EVERY_S - since, self._write_what_is_due)

    def _write_what_is_due(self) -> None:
        with self._lock:
            if self._is_due and not self._is_closed:
                self._write()

    def _write(self) -> None:
        self._is_due, self._written = False, self._clock()
        plain = {"updated": self._written, **self._plain, "sites": self._sites}
        try:
            write_bytes(self._path, json.dumps(plain, indent=1).encode())
            self.problem = ""
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror or error}"
