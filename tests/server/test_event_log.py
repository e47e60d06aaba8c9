"""The log: appended durably, shortened without ever being lost."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.server.event_log import EventLog
from fedcad.shared.errors import CheckpointError


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_lines_and_are_shown(tmp_path: Path) -> None:
    seen: list[Any] = []
    log = EventLog(tmp_path / "log", seen.append)
    log.append({"event": "round", "text": "a\nb\u2028c"})
    log.show({"event": "passing"})
    log.append({"event": "more"})
    assert lines(tmp_path / "log")[0]["text"] == "a\nb\u2028c"
    assert len((tmp_path / "log").read_bytes().splitlines()) == 2
    assert [event["event"] for event in seen] == ["round", "passing", "more"]


def test_without_an_observer_nothing_is_shown(tmp_path: Path) -> None:
    EventLog(tmp_path / "log").show({"event": "passing"})
    assert not (tmp_path / "log").exists()


@given(st.integers(0, 4), st.binary(max_size=20).filter(lambda torn: b"\n" not in torn))
@settings(max_examples=40, deadline=None)
def test_the_first_whole_lines_stay_whatever_torn_line_is_last(tmp_path_factory, count, torn) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("log") / "log"
    log = EventLog(path)
    for number in range(4):
        log.append({"number": number})
    with path.open("ab") as stream:
        stream.write(torn)
    log.truncate(count)
    assert lines(path) == [{"number": number} for number in range(count)]
    log.append({"number": "next"})
    assert lines(path)[count:] == [{"number": "next"}]


def test_a_new_log_is_made(tmp_path: Path) -> None:
    EventLog(tmp_path / "log").truncate(0)
    assert (tmp_path / "log").read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"torn"', b'{"a": 1}\n{"b": 2}'])
def test_a_log_behind_its_checkpoint_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(CheckpointError, match="the checkpoint needs 2"):
        EventLog(tmp_path / "log").truncate(2)
    assert (tmp_path / "log").read_bytes() == content


def test_an_interruption_of_shortening_loses_no_line_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(tmp_path / "log")
    for number in range(3):
        log.append({"number": number})

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.truncate(2)
    assert lines(tmp_path / "log")[:2] == [{"number": 0}, {"number": 1}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_refused_and_leaves_no_half_line(tmp_path: Path, value: Any) -> None:
    log = EventLog(tmp_path / "log")
    log.append({"good": 1})
    with pytest.raises((ValueError, TypeError)):
        log.append({"bad": value})
    assert lines(tmp_path / "log") == [{"good": 1}]
