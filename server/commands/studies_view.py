"""Commands that look at a consortium and change nothing: status, watch, logs, result."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fedcad.server.consortium import Consortium
from fedcad.server.log_reading import Entry, Filter, LogTail, last_lines
from fedcad.server.overview import coordinator_of, overview_of, study_view
from fedcad.server.printable import printable
from fedcad.server.status_view import show_first_line, show_overview, show_study
from fedcad.server.study_folder import StudyFolder, newest_of
from fedcad.server.study_state import State, StudyView
from fedcad.server.study_wording import first_line

LOOK_EVERY_S = 1.0
_LEVEL_STYLES = {"alert": "bold red", "critical": "bold red", "error": "red", "warning": "yellow"}
ConsortiumFolder = Annotated[Path, typer.Argument(help="The consortium's folder.", show_default=False)]
StudyName = Annotated[str, typer.Argument(help="Name of the study.", show_default=False)]


def status(
    consortium: ConsortiumFolder,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all details.")] = False,
) -> None:
    """Show the coordinator and every study: how far, which sites, who is missing and why.

    The first lines name what a hurried reader must know: sites that were lost, and studies that wait.
    """
    now = time.time()
    overview = overview_of(consortium, now)
    if as_json:
        typer.echo(
            json.dumps({"time": now, "warnings": overview.warnings(now), **overview.to_plain()}, indent=1)
        )
        return
    console = Console(highlight=False)
    for part in show_overview(overview, now):
        # In a pipe a line stays one, so that "head -1" is the first line.
        console.print(part, soft_wrap=isinstance(part, Text) and not console.is_terminal)


def watch(consortium: ConsortiumFolder, study: StudyName) -> int:
    """Watch a study live until it has ended; Ctrl-C ends only the watching.

    In a pipe it prints a line at each change. The exit code is 0 where the study finished, else 1.
    """
    home = Consortium.load(consortium)
    folder, console = newest_of(home.studies, study), Console(highlight=False)

    def look() -> StudyView:
        return study_view(folder, coordinator_of(home), time.time())

    try:
        view = _watch_live(look, console) if console.is_terminal else _watch_lines(look)
    except KeyboardInterrupt:
        typer.echo(
            f"no longer watching; the study is not affected. Again: fedcad server watch {consortium} {study}"
        )
        return 0
    return 0 if view.state is State.FINISHED else 1


def _watch_live(look: Callable[[], StudyView], console: Console) -> StudyView:
    """Show a study in place, once a second, until it has ended."""

    def picture() -> Group:
        now = time.time()
        return Group(show_first_line(view, now), show_study(view, now))

    view = look()
    with Live(picture(), console=console, auto_refresh=False) as live:
        while not view.state.has_ended:
            time.sleep(LOOK_EVERY_S)
            view = look()
            live.update(picture(), refresh=True)
    return view


def _watch_lines(look: Callable[[], StudyView]) -> StudyView:
    """Print a line whenever something has changed, until the study has ended."""
    shown: Any = None
    while True:
        view = look()
        # Not the line itself: "3 min from now" changes all the time.
        what = (view.state, view.current, view.round, view.reason, view.waiting_for, view.phase, view.until)
        if what != shown:
            detail = f" ({view.phase})" if view.state is State.RUNNING and view.phase else ""
            typer.echo(f"{time.strftime('%H:%M:%S')} {first_line(view, time.time())}{detail}")
            shown = what
        if view.state.has_ended:
            return view
        time.sleep(LOOK_EVERY_S)


def logs(
    consortium: ConsortiumFolder,
    process: Annotated[str, typer.Option(help="Only of this process, for instance superlink.")] = "",
    site: Annotated[str, typer.Option(help="Only lines that name this site.")] = "",
    lines: Annotated[int, typer.Option(min=0, help="How many of the last lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one object a line.")] = False,
) -> None:
    """Show what the coordinator's processes logged, all together by time (UTC)."""
    folder, wanted = Consortium.load(consortium).logs, Filter(process, site)
    console = Console(highlight=False)
    # Before the first lines are read: better a line twice than one never.
    tail = LogTail(folder, wanted)
    found = last_lines(folder, wanted, lines)
    for entry in found:
        _print_entry(console, entry, as_json=as_json)
    if not found and not follow:
        typer.echo("no such lines", err=True)
    while follow:
        try:
            time.sleep(LOOK_EVERY_S)
        except KeyboardInterrupt:
            return
        for entry in tail.new():
            _print_entry(console, entry, as_json=as_json)


def _print_entry(console: Console, entry: Entry, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(entry, ensure_ascii=False))
        return
    level = "" if entry["level"] == "info" else f"{entry['level'].upper()} "
    text = Text(f"{entry['time'][:19]} {entry['process']:<10} ", style="dim")
    text.append(f"{level}{printable(entry['text'])}", style=_LEVEL_STYLES.get(entry["level"], "not dim"))
    console.print(text, soft_wrap=True)


def result(
    consortium: ConsortiumFolder,
    study: StudyName,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to make. Default: STUDY-vN-round-R here.", show_default=False),
    ] = None,
) -> None:
    """Write a study's result, as it is now: there is one after every closed round, also while it runs.

    The folder holds model.safetensors (the selected version), report.html, result.json, participation.csv
    and .json (every round, every site, with reasons), learning.csv, the contract and its seal.
    """
    # Imported late: it loads torch, which takes seconds; mistakes need not wait.
    from fedcad.server.study_result import write_result

    home = Consortium.load(consortium)
    folder = newest_of(home.studies, study)
    view = study_view(folder, coordinator_of(home), time.time())
    written = write_result(folder, view, out or _default_out(folder, view))
    typer.echo(written.first_line)
    typer.echo(f"\nwritten: {written.folder}\nread first: {written.folder / 'report.html'}")


def _default_out(folder: StudyFolder, view: StudyView) -> Path:
    end = "final" if view.state is State.FINISHED else f"round-{view.round}"
    return Path(f"{folder.name}-v{folder.version}-{end}")
