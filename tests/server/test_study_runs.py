import fcntl
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.server.flower_control import RunStatus
from fedcad.server.study_folder import StudyFolder, Wanted
from fedcad.server.study_runs import GRACE_S, LONGEST_DELAY_S, StudyRuns, run_delay


class Flower:
    """A Control API that remembers; what Flower does with runs is tested with the real one elsewhere."""

    def __init__(self) -> None:
        self.known: dict[int, RunStatus] = {}
        self.stopped: list[int] = []

    def start_run(self, run_directory: Path) -> int:
        number = len(self.known) + 1
        self.known[number] = RunStatus(number, "running", "", str(run_directory))
        return number

    def stop_run(self, run_id: int) -> None:
        self.stopped.append(run_id)
        self.finish(run_id)

    def finish(self, run_id: int, details: str = "stopped") -> None:
        self.known[run_id] = RunStatus(run_id, "finished", details, self.known[run_id].run_directory)

    def run(self, run_id: int) -> RunStatus | None:
        return self.known.get(run_id)

    def runs(self) -> list[RunStatus]:
        return list(self.known.values())


class Setting:
    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.flower = Flower()
        self.studies = folder / "studies"
        self.folder = StudyFolder(self.studies / "chest" / "v0001")
        self.folder.path.mkdir(parents=True)
        self.runs = self.new_runs()

    def new_runs(self) -> StudyRuns:
        return StudyRuns(self.studies, self.said.append, lambda: self.now)

    def step(self, after: float = 1.0) -> int:
        """Let time pass and look; return how many runs have ever been started."""
        self.now += after
        self.runs.step(self.flower)
        return len(self.flower.known)

    def outcome(self, status: str) -> None:
        outcome = {
            "status": status,
            "reason": "",
            "model_sha256": "",
            "selected_version": 1,
            "rounds_closed": 1,
        }
        (self.folder.path / "outcome.json").write_text(json.dumps(outcome))


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


@pytest.fixture
def hold(setting):
    """Hold the lock of the study, as a run's process does, until called again with False."""
    held = []

    def switch(on: bool) -> None:
        if on:
            stream = setting.folder.lock_file.open("a+b")
            fcntl.flock(stream, fcntl.LOCK_EX)
            held.append(stream)
        else:
            held.pop().close()

    yield switch
    for stream in held:
        stream.close()


def test_a_study_that_nobody_wants_gets_no_run(setting):
    assert setting.step() == 0
    for wanted in (Wanted.PAUSED, Wanted.STOPPED):
        setting.folder.want(wanted)
        assert setting.step() == 0


def test_a_wanted_study_gets_one_run_and_no_second_while_it_starts_or_runs(setting, hold):
    setting.folder.want(Wanted.RUNNING)
    assert setting.step() == 1
    assert setting.flower.known[1].run_directory == str(setting.folder.path)
    assert setting.step(GRACE_S - 1) == 1
    hold(True)
    assert setting.step(10 * GRACE_S) == 1
    assert setting.flower.stopped == []


def test_a_killed_run_is_replaced_although_flower_believes_that_it_runs(setting, hold):
    setting.folder.want(Wanted.RUNNING)
    setting.step()
    hold(True)
    setting.step()
    hold(False)
    assert setting.step() == 1
    assert setting.flower.stopped == [1]
    assert setting.step(1.0) == 2


def test_a_run_whose_process_never_appears_is_given_up_after_the_grace(setting):
    setting.folder.want(Wanted.RUNNING)
    setting.step()
    assert setting.step(GRACE_S) == 1
    assert setting.flower.stopped == [1]
    assert setting.step(1.0) == 2


def test_a_run_that_fails_at_once_is_retried_ever_later_with_its_reason(setting):
    setting.folder.want(Wanted.RUNNING)
    starts = []
    for _ in range(600):
        before = len(setting.flower.known)
        if setting.step(1.0) > before:
            starts.append(setting.now)
            setting.flower.finish(before + 1, "failed no module")
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits[:5] == [2, 3, 5, 9, 17]  # one look until it is noticed, then 1, 2, 4, 8, 16
    assert "failed no module" in setting.runs.state()["chest/v0001"]["reason"]


def test_a_healthy_minute_forgives_earlier_failures(setting, hold):
    setting.folder.want(Wanted.RUNNING)
    setting.step()
    setting.flower.finish(1)
    setting.step()
    setting.step()
    assert setting.runs.state()["chest/v0001"]["failures"] == 1
    hold(True)
    setting.step()
    setting.step(60.0)
    assert setting.runs.state()["chest/v0001"]["failures"] == 0


def test_a_finished_study_is_left_alone_and_one_that_stopped_early_goes_on(setting):
    setting.folder.want(Wanted.RUNNING)
    setting.outcome("completed")
    assert setting.step() == 0
    setting.outcome("stopped")
    assert setting.step() == 1


def test_a_run_that_has_not_begun_when_the_study_is_paused_is_stopped(setting):
    setting.folder.want(Wanted.RUNNING)
    setting.step()
    setting.folder.want(Wanted.PAUSED)
    setting.step()
    assert setting.flower.stopped == [1]


def test_a_new_supervisor_stops_what_an_earlier_one_left_and_starts_again(setting):
    setting.folder.want(Wanted.RUNNING)
    setting.step()
    setting.runs = setting.new_runs()
    assert setting.step() == 2
    assert setting.flower.stopped == [1]


def test_a_damaged_folder_is_named_once_and_does_not_stop_the_others(setting):
    setting.folder.want(Wanted.RUNNING)
    other = setting.studies / "abdomen" / "v0001"
    other.mkdir(parents=True)
    (other / "wanted.json").write_text("{")
    assert setting.step() == 1
    setting.step()
    assert len([line for line in setting.said if "abdomen v1" in line]) == 1


@given(st.integers(-5, 100_000))
def test_delays_grow_and_never_exceed_their_bound(failures):
    assert 1.0 <= run_delay(failures) <= run_delay(failures + 1) <= LONGEST_DELAY_S
