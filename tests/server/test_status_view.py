"""What a person sees, at 80 and 140 columns and in a pipe."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from study_folders import NOW, Lost, Wanted, add_study, make_consortium, run_rounds, say_running, wait_for

from fedcad.server.consortium import Consortium
from fedcad.server.live import SiteLive
from fedcad.server.overview import Overview, overview_of
from fedcad.server.status_view import show_overview, show_study
from fedcad.server.study_state import Miss, SiteView, State, StudyView
from fedcad.shared.instance_lock import InstanceLock

LONG = "university-hospital-heidelberg"


def lines_of(*parts: object, width: int = 80) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    for part in parts:
        console.print(part)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def looked_at(home: Consortium) -> Overview:
    with InstanceLock(home.run / "supervisor.lock", "it"):
        say_running(home)
        return overview_of(home.folder, NOW)


def test_a_consortium_without_studies_says_what_to_do(home: Consortium) -> None:
    lines = lines_of(*show_overview(overview_of(home.folder, NOW), NOW), width=140)
    assert lines[0] == "no study has been submitted yet: fedcad server submit"
    assert "coordinator NOT RUNNING, start it: fedcad server start" in lines[2]
    assert lines[3] == "0 sites enrolled"


@pytest.mark.parametrize("width", [80, 140])
def test_a_study_with_lost_sites_shows_every_number_and_reason(home: Consortium, width: int) -> None:
    folder = add_study(home, sites=("a", "c", LONG), participation={"quorum": 1, "deadline_s": 60.0})
    lost = {(LONG, 2): Lost("connection reset " * 8), ("c", 2): Lost("garbage", is_garbage=True)}
    run_rounds(folder, lost=lost, stop_in=3)
    with folder.hold():
        overview = looked_at(home)
    lines = lines_of(*show_overview(overview, NOW), width=width)
    text = " ".join(line.strip() for line in lines)
    assert lines[0].startswith("small v1: running, round 3 of 3; WITHOUT")
    assert all(len(line) <= width for line in lines)
    head = next(line.split() for line in lines if line.startswith("site "))
    assert head[-6:] == ["version", "counted", "late", "lost", "refused", "rejected"]
    row = next(line.split() for line in lines if line.startswith(LONG[:19]) and "0.1.0" in line)
    assert row[-6:] == ["0.1.0", "1", "0", "1", "0", "0"]
    assert "c: rejected in round 2: garbage" in text
    assert f"{LONG}: lost in round 2: connection reset" in text
    assert "coordinator running for 2 h, process 4321" in text


def test_the_study_that_needs_somebody_comes_first(home: Consortium) -> None:
    run_rounds(add_study(home, "a-done"))
    add_study(home, "b-paused").want(Wanted.PAUSED)
    waiting = add_study(home, "c-waits")
    wait_for(waiting, "1 of quorum 2", ["b", "c"], NOW + 10000)
    with waiting.hold():
        lines = lines_of(*show_overview(looked_at(home), NOW), width=200)
    assert [line.split()[0] for line in lines[:3]] == ["c-waits", "b-paused", "a-done"]
    assert "1 of quorum 2; missing b, c; gives up at" in lines[0]
    assert "a-done v1" not in lines  # the first line says all there is


def test_many_reasons_are_cut_with_a_pointer() -> None:
    misses = tuple(Miss("lost", f"reason {number}", (number,)) for number in range(1, 10))
    view = StudyView("s", 1, State.RUNNING, sites=(SiteView("a", SiteLive(), {}, misses),))
    text = "\n".join(lines_of(show_study(view, NOW)))
    assert "reason 6" in text
    assert "reason 7" not in text
    assert "3 more reasons: fedcad server result" in text


def test_what_cannot_be_read_is_shown() -> None:
    view = StudyView("s", 1, State.UNKNOWN, problems=("seal.json: cannot be read",))
    assert "! seal.json: cannot be read" in lines_of(show_study(view, NOW))


def test_brackets_in_a_reason_are_text_and_not_markup() -> None:
    misses = (Miss("lost", "[red]errno 104[/red] [Errno]", (1,)),)
    view = StudyView("s", 1, State.RUNNING, sites=(SiteView("a", SiteLive(), {}, misses),))
    assert "[red]errno 104[/red] [Errno]" in "\n".join(lines_of(show_study(view, NOW)))
    named = replace(view, sites=(SiteView("a", SiteLive(version="[bold]x"), {}, ()),), phase="training")
    assert "[bold]x" in "\n".join(lines_of(show_study(named, NOW)))


def test_processes_that_are_down_are_named(home: Consortium) -> None:
    with InstanceLock(home.run / "supervisor.lock", "it"):
        say_running(home, processes={"superlink": {"state": "waiting"}}, problem="port 8443 is in use")
        overview = overview_of(home.folder, NOW)
    text = " ".join(lines_of(*show_overview(overview, NOW), width=200))
    assert "superlink waiting; port 8443 is in use" in text
