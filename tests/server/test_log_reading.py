"""Logs: the last lines of all processes by time, and what is added, also across the change to a new file."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.server.log_reading import Filter, LogTail, entries_in, last_lines, processes_of
from fedcad.shared.errors import ConfigError
from fedcad.shared.process_log import ProcessLog


def write(log: ProcessLog, number: int, text: str = "") -> None:
    log.write(
        text or f"line {number}", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    )


def texts(entries: list[dict[str, str]]) -> list[str]:
    return [entry["text"] for entry in entries]


def test_the_last_lines_of_all_by_time(tmp_path: Path) -> None:
    one, two = ProcessLog(tmp_path, "superlink"), ProcessLog(tmp_path, "superexec")
    for number in range(6):
        write(one if number % 2 else two, number)
    assert texts(last_lines(tmp_path, Filter(), 3)) == ["line 3", "line 4", "line 5"]
    assert texts(last_lines(tmp_path, Filter("superexec"), 9)) == ["line 0", "line 2", "line 4"]
    assert last_lines(tmp_path, Filter(), 0) == []
    assert processes_of(tmp_path) == ["superexec", "superlink"]


def test_a_process_without_log_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no logs yet"):
        last_lines(tmp_path, Filter("superlnik"), 3)
    write(ProcessLog(tmp_path, "superlink"), 1)
    with pytest.raises(ConfigError, match="expected one of superlink"):
        last_lines(tmp_path, Filter("superlnik"), 3)
    with pytest.raises(ConfigError):
        last_lines(tmp_path, Filter("../superlink"), 3)


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("site charite answered", True),
        ("charite: lost", True),
        ("lost 'charite'.", True),
        ("charite-2 answered", False),
        ("st-charite answered", False),
        ("nothing", False),
    ],
)
def test_a_site_is_its_whole_name(text: str, is_taken: bool) -> None:
    assert Filter(site="charite").takes({"text": text}) is is_taken


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans()), max_size=40))
@settings(max_examples=30, deadline=None)
def test_following_shows_every_line_once_although_files_are_replaced(tmp_path_factory, steps) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("logs")
    logs = {name: ProcessLog(folder, name, largest_bytes=300, kept=3) for name in "ab"}
    write(logs["a"], 0)
    tail, seen = LogTail(folder, Filter()), []
    for number, (name, look) in enumerate(steps, start=1):
        write(logs[name], number)
        # Two files may change between two looks; more than one change of the same file is not followed.
        if look or number % 2 == 0:
            seen += texts(tail.new())
    seen += texts(tail.new())
    assert seen == [f"line {number}" for number in range(1, len(steps) + 1)]


def test_half_a_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    tail = LogTail(tmp_path, Filter())
    line = json.dumps({"time": "t", "process": "a", "level": "info", "text": "x"}).encode() + b"\n"
    with path.open("ab") as stream:
        stream.write(line[:20])
        stream.flush()
        assert tail.new() == []
        stream.write(line[20:])
    assert texts(tail.new()) == ["x"]


@given(st.lists(st.binary(max_size=40)))
def test_what_is_no_log_line_is_left_out(lines: list[bytes]) -> None:
    good = json.dumps({"time": "t", "process": "a", "level": "info", "text": "x"}).encode()
    assert texts(list(entries_in([*lines, good])))[-1:] == ["x"]
