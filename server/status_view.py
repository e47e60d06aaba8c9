"""How a consortium and its studies look in a terminal; the same tables as plain text in a pipe."""

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedcad.server.overview import Overview
from fedcad.server.study_state import SiteView, State, StudyView
from fedcad.server.study_wording import first_line, in_words, rounds_in_words

_STYLES = {
    State.RUNNING: "bold green",
    State.FINISHED: "bold green",
    State.WAITING: "bold yellow",
    State.STARTING: "bold yellow",
    State.PAUSED: "bold yellow",
    State.INTERRUPTED: "bold red",
    State.FAILED: "bold red",
    State.UNKNOWN: "bold red",
}
_URGENCY = (
    State.FAILED,
    State.UNKNOWN,
    State.INTERRUPTED,
    State.WAITING,
    State.STARTING,
    State.RUNNING,
    State.PAUSED,
    State.STOPPED,
    State.FINISHED,
)
_MOST_REASONS = 6
_NUMBERS = ("counted", "late", "lost", "refused", "rejected")


def show_overview(overview: Overview, now: float) -> list[RenderableType]:
    """Return a consortium: a line for each study, its coordinator, what to see to, its sites.

    The studies that need somebody come first, so that the first line is the one to read.
    """
    studies = sorted(overview.studies, key=lambda study: _URGENCY.index(study.state))
    nothing = Text("no study has been submitted yet: fedcad server submit")
    return [
        *([show_first_line(study, now) for study in studies] or [nothing]),
        "",
        _coordinator(overview, now),
        _enrolled(overview),
        *(Text(f"! {warning}", style="yellow") for warning in overview.warnings(now)),
        *(part for study in studies if _has_details(study) for part in ("", show_study(study, now))),
    ]


def _has_details(study: StudyView) -> bool:
    """Whether there is more to see than the first line says."""
    return not study.state.has_ended or bool(study.incomplete or study.problems)


def show_first_line(study: StudyView, now: float) -> Text:
    """Return a study's first line, coloured by its state; red where it lost sites."""
    text = Text(first_line(study, now))
    style = _STYLES.get(study.state, "bold")
    text.stylize(style, 0, len(study.title))
    start = text.plain.find("WITHOUT ")
    if start >= 0:
        text.stylize("red", start)
    return text


def show_study(study: StudyView, now: float) -> RenderableType:
    """Return a study's sites and the reasons of what did not count."""
    parts: list[RenderableType] = [Text(study.title, style="bold"), Text(_facts(study), style="dim")]
    if study.sites:
        parts.append(_sites(study, now))
    parts += [_miss(line) for line in _reasons(study.sites)]
    parts += [Text(f"! {problem}", style="red") for problem in study.problems]
    return Group(*parts)


def _coordinator(overview: Overview, now: float) -> Text:
    coordinator = overview.coordinator
    text = Text(f"Consortium {overview.name} at {overview.address}: ")
    if not coordinator.is_running:
        return text.append("coordinator NOT RUNNING, start it: fedcad server start", style="bold red")
    since = f" for {in_words(now - coordinator.started)}" if coordinator.started else ""
    process = f", process {coordinator.pid}" if coordinator.pid else ""
    text.append(f"coordinator running{since}{process}", style="green")
    down = [f"{name} {state}" for name, state in (coordinator.processes or {}).items() if state != "running"]
    for trouble in filter(None, (", ".join(down), coordinator.problem)):
        text.append(f"; {trouble}", style="red")
    return text


def _enrolled(overview: Overview) -> Text:
    count = sum(status == "enrolled" for status in overview.sites.values())
    others = [f"{name} {status}" for name, status in overview.sites.items() if status != "enrolled"]
    return Text(f"{count} site{'' if count == 1 else 's'} enrolled" + "".join(f", {each}" for each in others))


def _facts(study: StudyView) -> str:
    parts = [
        f"{study.round} of {study.rounds} rounds closed" if study.rounds else "",
        f"quorum {study.quorum}",
    ]
    if study.phase and study.state is State.RUNNING:
        parts.append(f"round {study.current}: {study.phase}")
        if study.waiting_for:
            parts[-1] += f", waiting for {', '.join(study.waiting_for)}"
    if study.bytes_sent or study.bytes_received:
        parts.append(f"{_size(study.bytes_sent)} sent, {_size(study.bytes_received)} received")
    return " · ".join(part for part in parts if part)


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _sites(study: StudyView, now: float) -> Table:
    numbers = [name for name in _NUMBERS if name != "rejected" or _any(study.sites, name)]
    # The box brings one space between columns; a second one only where 80 columns are enough for it.
    is_wide = len(numbers) == len(_NUMBERS)
    padding = (0, 0 if is_wide else 1, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    table.add_column("site", overflow="fold", min_width=12, max_width=40)
    table.add_column("contact" if is_wide else "last contact", no_wrap=True)
    table.add_column("now", no_wrap=True)
    table.add_column("version", overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for site in study.sites:
        cells = [_number(site.rounds.get(name, 0), is_bad=name != "counted") for name in numbers]
        doing = _doing(site) if study.phase else ""
        table.add_row(
            Text(site.name), Text(_contact(site, now)), doing, Text(site.live.version or "-"), *cells
        )
    return table


def _any(sites: Iterable[SiteView], status: str) -> bool:
    return any(site.rounds.get(status, 0) for site in sites)


def _number(count: int, *, is_bad: bool) -> Text:
    return Text(str(count), style="red" if is_bad and count else "dim" if is_bad else "")


def _contact(site: SiteView, now: float) -> str:
    return f"{in_words(now - site.live.last_contact)} ago" if site.live.last_contact is not None else "never"


def _doing(site: SiteView) -> Text:
    status = site.live.status
    doing = "training" if status == "asked" else status or site.live.phase or "-"
    return Text(doing, style="red" if status in ("late", "lost", "refused", "rejected") else "")


def _miss(line: str) -> RenderableType:
    """Return a reason with its continuation lines indented below it."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    site, _, reason = line.partition("  ")
    grid.add_row(Text(f"  {site}:", style="red"), Text(reason))
    return grid


def _reasons(sites: Iterable[SiteView]) -> list[str]:
    """Return why sites did not count, a line for each site and reason."""
    lines = []
    for site in sites:
        for miss in site.misses[:_MOST_REASONS]:
            rounds = rounds_in_words(miss.rounds)
            lines.append(f"{site.name}  {miss.status} in {rounds}{': ' if miss.reason else ''}{miss.reason}")
        if len(site.misses) > _MOST_REASONS:
            lines.append(
                f"{site.name}  {len(site.misses) - _MOST_REASONS} more reasons: fedcad server result"
            )
    return lines
