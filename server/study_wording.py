"""How the state of a study is said in words."""

import time
from collections.abc import Iterable

from fedcad.server.study_state import State, StudyView

_MOST_RANGES = 6
_MOST_SITES = 6


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: ``1-3, 7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def rounds_in_words(numbers: Iterable[int]) -> str:
    """Return which rounds, briefly where they are many: ``rounds 1-3, 7`` or ``143 rounds, last 999``."""
    found = sorted(numbers)
    listed = ranges(found)
    if listed.count(",") >= _MOST_RANGES:
        return f"{len(found)} rounds, last {found[-1]}"
    return f"round{'s' if len(found) > 1 else ''} {listed}"


def first_line(view: StudyView, now: float) -> str:
    """Return the one line that a hurried reader gets: state, round, and which sites are missing or were lost.

    Args:
        view: The study.
        now: Seconds since 1970.
    """
    parts = [f"{view.title}: {_progress(view)}"]
    if view.state is State.WAITING:
        parts.append(_waiting(view, now))
    elif view.reason:
        parts.append(view.reason)
    if lost := losses(view):
        parts.append(lost)
    return "; ".join(part for part in parts if part)


def _progress(view: StudyView) -> str:
    of = f" of {view.rounds}" if view.rounds else ""
    if view.state is State.FINISHED:
        return f"finished, {view.round}{of} rounds"
    if view.state is State.RUNNING:
        if view.rounds and view.round >= view.rounds:
            return f"running, all {view.rounds} rounds are closed, last validation"
        return f"running, round {view.current}{of}"
    if view.state is State.WAITING:
        return f"WAITING FOR SITES, round {view.current}{of}"
    name = view.state.value.upper() if view.state in (State.FAILED, State.UNKNOWN) else view.state.value
    return f"{name} after round {view.round}{of}" if view.round else f"{name}, no round closed yet"


def _waiting(view: StudyView, now: float) -> str:
    parts = [view.reason] if view.reason else []
    if view.waiting_for and not all(site in view.reason for site in view.waiting_for):
        parts.append(f"missing {', '.join(view.waiting_for)}")
    if view.until is not None:
        clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(view.until))
        parts.append(f"gives up at {clock} ({in_words(view.until - now)} from now)")
    return "; ".join(parts)


def losses(view: StudyView) -> str:
    """Return which sites were missing from which closed rounds, or an empty text where none was."""
    missing = view.incomplete
    named = [
        f"{site.name} ({rounds_in_words(number for miss in site.misses for number in miss.rounds)})"
        for site in missing[:_MOST_SITES]
    ]
    if len(missing) > _MOST_SITES:
        named.append(f"and {len(missing) - _MOST_SITES} more sites")
    return f"WITHOUT {', '.join(named)}" if named else ""


def in_words(seconds: float) -> str:
    """Return a duration as people say it: ``40 s``, ``12 min``, ``3 h``, ``5 days``."""
    seconds = max(seconds, 0.0)
    for unit, name in ((172800.0, "days"), (7200.0, "h"), (120.0, "min")):
        if seconds >= unit:
            return f"{round(seconds / {'days': 86400, 'h': 3600, 'min': 60}[name])} {name}"
    return f"{round(seconds)} s"
