"""The state of a study from its folder: every state of a real study, and damage of every file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_folders import (
    NOW,
    Lost,
    Wanted,
    add_study,
    make_consortium,
    run_rounds,
    wait_for,
)

from fedcad.server.checkpoint import CheckpointStore
from fedcad.server.outcome import write_outcome
from fedcad.server.study_folder import StudyFolder
from fedcad.server.study_state import STOPPED_BY_HAND, State, view_of
from fedcad.shared.contract import Contract

LOST = {
    ("b", 1): Lost("cable\x1b[2J"),
    ("b", 2): Lost("too slow", is_late=True),
    ("c", 2): Lost("garbage", is_garbage=True),
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return add_study(make_consortium(tmp_path), participation={"quorum": 1, "deadline_s": 60.0})


def give_up(folder: StudyFolder, reason: str) -> None:
    """End a run early, as the coordinator's app does."""
    contract = Contract.load(folder.path / "contract")
    checkpoint = CheckpointStore(folder.path / "checkpoints").latest(contract.study_hash)
    assert checkpoint is not None
    write_outcome(folder.path, checkpoint, contract.layout, stopped=reason)


def test_a_running_study_counts_every_site(folder: StudyFolder) -> None:
    run_rounds(folder, lost=LOST, stop_in=3)
    with folder.hold():
        view = view_of(folder, now=NOW)
    assert (view.state, view.round, view.current, view.rounds, view.quorum) == (State.RUNNING, 2, 3, 3, 1)
    assert view.phase == "training"
    assert view.waiting_for == ("b", "c")
    a, b, c = view.sites
    assert (a.name, a.rounds["counted"], a.misses) == ("a", 2, ())
    assert {status: count for status, count in b.rounds.items() if count} == {"lost": 1, "late": 1}
    assert [(miss.status, miss.reason, miss.rounds) for miss in b.misses] == [
        ("lost", "cable [2J", (1,)),
        ("late", "too slow", (2,)),
    ]
    assert c.rounds["rejected"] == 1
    assert [site.name for site in view.incomplete] == ["b", "c"]
    assert (a.missed_latest, b.missed_latest, c.missed_latest) == (False, True, True)
    # Two rounds, three sites, 10 bytes sent and 20 received each, as the channel says.
    assert (view.bytes_sent, view.bytes_received) == (60, 120)
    assert a.live.version == "0.1.0"
    assert view.expires == NOW - 3600 + 180 * 86400
    assert view.problems == ()


def test_a_waiting_study(folder: StudyFolder) -> None:
    run_rounds(folder, stop_in=2)
    wait_for(folder, "quorum", ["c", "b"], NOW + 100)
    with folder.hold():
        view = view_of(folder, now=NOW)
    assert (view.state, view.reason, view.waiting_for, view.until, view.current) == (
        State.WAITING,
        "quorum",
        ("b", "c"),
        NOW + 100,
        2,
    )
    view = view_of(folder, now=NOW)
    assert (view.state, view.waiting_for, view.until, view.phase) == (State.STARTING, (), None, "")


def test_idle_studies(folder: StudyFolder) -> None:
    def state(**options: Any) -> tuple[State, str]:
        view = view_of(folder, now=NOW, **options)
        return view.state, view.reason

    assert state() == (State.STARTING, "")
    assert state(coordinator_runs=False) == (State.INTERRUPTED, "the coordinator is not running")
    assert state(trouble="exit 1")[1].endswith("started again: exit 1")
    folder.want(Wanted.PAUSED, "holiday")
    assert state() == (State.PAUSED, "holiday")
    with folder.hold():
        assert view_of(folder, now=NOW).reason == "to be paused after this round"
    folder.want(Wanted.STOPPED, "enough")
    assert state() == (State.STOPPED, "enough")
    (folder.path / "wanted.json").unlink()
    assert state() == (State.STOPPED, "it was never started")


def test_giving_up_is_a_failure_and_stopping_is_not(folder: StudyFolder) -> None:
    run_rounds(folder, stop_in=2)
    give_up(folder, "below quorum for 7 days")
    folder.want(Wanted.STOPPED, "below quorum for 7 days")
    assert (view_of(folder, now=NOW).state, view_of(folder, now=NOW).reason) == (
        State.FAILED,
        "below quorum for 7 days",
    )
    folder.want(Wanted.RUNNING)
    assert view_of(folder, now=NOW).state is State.STARTING
    give_up(folder, STOPPED_BY_HAND)
    folder.want(Wanted.STOPPED, STOPPED_BY_HAND)
    assert view_of(folder, now=NOW).state is State.STOPPED


def test_a_contract_that_has_ended_is_a_failure_before_anything_runs(folder: StudyFolder) -> None:
    view = view_of(folder, now=NOW + 181 * 86400)
    assert view.state is State.FAILED
    assert "its contract ended" in view.reason


def test_a_finished_study(folder: StudyFolder) -> None:
    run_rounds(folder)
    view = view_of(folder, now=NOW, coordinator_runs=False)
    assert (view.state, view.round, view.current) == (State.FINISHED, 3, 0)


def test_the_last_progress_is_the_latest_of_checkpoint_and_contacts(folder: StudyFolder) -> None:
    assert view_of(folder, now=NOW).last_progress == 0.0
    run_rounds(folder, stop_in=2)
    checkpoint = folder.path / "checkpoints" / "round-0001.json"
    os.utime(checkpoint, (NOW - 100, NOW - 100))
    assert view_of(folder, now=NOW).last_progress == NOW - 5.0  # when the sites were heard of
    os.utime(checkpoint, (NOW - 2, NOW - 2))
    assert view_of(folder, now=NOW).last_progress == NOW - 2.0


FILES = ("wanted.json", "live.json", "rounds.jsonl", "seal.json", "run.json", "checkpoints/round-0001.json")


@pytest.mark.parametrize("content", [b"", b"{\n", b"[]\n", b"{}\n", b"\xff\n"])
@pytest.mark.parametrize("file", [*FILES, "contract/contract.json", "outcome.json"])
def test_damage_is_a_problem_and_never_an_exception(folder: StudyFolder, file: str, content: bytes) -> None:
    run_rounds(folder, stop_in=2)
    (folder.path / file).write_bytes(content)
    view = view_of(folder, now=NOW)
    if file != "rounds.jsonl" or content:
        assert any(file.rpartition("/")[2] in problem for problem in view.problems)
    json.dumps(view.to_plain())


PARTS: dict[str, Callable[[Any], Any]] = {
    "no participation": lambda event: {"event": "round", "round": 1},
    "round is text": lambda event: event | {"round": "x"},
    "bytes are text": lambda event: event | {"bytes_sent": "x"},
    "parts are empty": lambda event: event | {"participation": [{}]},
    "parts are text": lambda event: event | {"participation": ["x"]},
    "parts are a number": lambda event: event | {"participation": 5},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_strange_log_is_no_exception(folder: StudyFolder, name: str) -> None:
    run_rounds(folder, stop_in=2)
    event = next(event for event in folder.events() if event["event"] == "round")
    (folder.path / "rounds.jsonl").write_text(json.dumps(PARTS[name](event)) + "\n")
    json.dumps(view_of(folder, now=NOW).to_plain())
