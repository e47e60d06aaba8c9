"""Alerts: once when a study stalls, once when it goes on, never for a study that need not do anything."""

import json
import os
from pathlib import Path

import pytest
from study_folders import NOW, Wanted, add_study, make_consortium, run_rounds

from fedcad.server.live import LiveState
from fedcad.server.stall import StallAlert, quiet_for
from fedcad.server.study_folder import StudyFolder
from fedcad.server.study_state import State, StudyView
from fedcad.shared.process_log import ProcessLog


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = add_study(make_consortium(tmp_path))
    wish = {"wanted": "running", "since": "2001-01-01T00:00:00+00:00", "reason": ""}
    (folder.path / "wanted.json").write_text(json.dumps(wish))
    return folder


def make_alert(folder: StudyFolder, started: float = NOW) -> StallAlert:
    logs = folder.path.parents[2] / "logs"
    return StallAlert(folder.path.parents[1], 100.0, ProcessLog(logs, "alerts"), started)


def logged(folder: StudyFolder) -> list[tuple[str, str]]:
    path = folder.path.parents[2] / "logs" / "alerts.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["level"], entry["text"].split()[0]) for entry in entries]


def hear_of(folder: StudyFolder, now: float) -> None:
    live = LiveState(folder.path / "live.json", lambda: now)
    live.contact("a", "training")
    live.close()


def test_one_alert_and_one_all_clear(folder: StudyFolder) -> None:
    alert = make_alert(folder)
    assert alert.check(NOW) == alert.check(NOW + 99.9) == []
    (said,) = alert.check(NOW + 100.0)
    assert said.startswith("STALLED small v1: starting, no round closed yet")
    assert alert.check(NOW + 5000.0) == []
    assert alert.stalled == {"small v1"}
    hear_of(folder, NOW + 5050.0)
    assert alert.check(NOW + 5060.0) == ["ALL CLEAR small v1: it goes on"]
    assert alert.check(NOW + 5070.0) == []
    assert logged(folder) == [("alert", "STALLED"), ("info", "ALL")]


def test_a_closed_round_is_progress_although_no_site_is_heard_of(folder: StudyFolder) -> None:
    run_rounds(folder, stop_in=3)
    os.utime(folder.path / "checkpoints" / "round-0002.json", (NOW + 150, NOW + 150))
    alert = make_alert(folder)
    assert alert.check(NOW + 200.0) == []
    assert len(alert.check(NOW + 250.0)) == 1


@pytest.mark.parametrize("wanted", [Wanted.PAUSED, Wanted.STOPPED])
def test_who_pauses_a_stalled_study_hears_the_all_clear(folder: StudyFolder, wanted: Wanted) -> None:
    alert = make_alert(folder)
    assert len(alert.check(NOW + 200)) == 1
    folder.want(wanted)
    assert alert.check(NOW + 300) == [f"ALL CLEAR small v1: it is {wanted.value}"]
    assert alert.check(NOW + 900) == []


def test_a_finished_study_may_be_quiet(folder: StudyFolder) -> None:
    run_rounds(folder)
    assert make_alert(folder).check(NOW + 1e6) == []


def test_a_new_version_ends_the_alert_of_the_old_one(folder: StudyFolder) -> None:
    alert = make_alert(folder)
    assert len(alert.check(NOW + 200)) == 1
    folder.path.with_name("v0002").mkdir()
    assert alert.check(NOW + 210) == ["ALL CLEAR small v1: it is no longer the newest version"]


def test_quiet_counts_from_the_latest_of_what_happened() -> None:
    def quiet(now: float, **changes: float) -> float | None:
        return quiet_for(StudyView("s", 1, State.RUNNING, "running", **changes), now, since=50.0)  # type: ignore[arg-type]

    assert quiet(60.0) == 10.0
    assert quiet(60.0, last_progress=55.0) == 5.0
    assert quiet(60.0, wanted_since=58.0) == 2.0
    assert quiet(60.0, last_progress=1000.0) == 0.0  # the clock was set back
    assert quiet_for(StudyView("s", 1, State.FAILED, "running"), 60.0) is None
    assert quiet_for(StudyView("s", 1, State.PAUSED, "paused"), 60.0) is None
