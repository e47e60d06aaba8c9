import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.process_log import ProcessLog, read_log, split_level


def noon() -> datetime:
    return datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[93mWARNING \x1b[0m:   Connection attempt failed", ("warning", "Connection attempt failed")),
        ("2026-11-25T01:37:30.862Z INFO [uvicorn.access] 127.0.0.1 - x", ("info", "127.0.0.1 - x")),
        ("INFO:     Started server process [7]", ("info", "Started server process [7]")),
        ("Traceback (most recent call last):", ("info", "Traceback (most recent call last):")),
        ("WARN  : low", ("warning", "low")),
        ("INFORMATION is free", ("info", "INFORMATION is free")),
        ("", ("info", "")),
    ],
)
def test_level_and_text_of_what_flower_and_uvicorn_print(line, expected):
    assert split_level(line) == expected


@given(st.text())
def test_no_printed_line_can_steer_the_terminal_of_its_reader(line):
    _, text = split_level(line)
    assert all(letter.isprintable() or letter == "\t" for letter in text)


def test_a_line_is_json_with_time_process_level_and_text(tmp_path):
    log = ProcessLog(tmp_path, "supernode")
    assert log.write_printed("ERROR : disc „voll“", noon) == ("error", "disc „voll“")
    log.write_printed("   ", noon)
    (line,) = log.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "time": "2026-11-25T12:00:00.123Z",
        "process": "supernode",
        "level": "error",
        "text": "disc „voll“",
    }
    assert log.path.stat().st_mode & 0o777 == 0o600


@given(st.lists(st.integers(0, 300), max_size=60))
def test_the_files_stay_below_their_bound_and_the_newest_lines_are_kept(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("logs")
    log = ProcessLog(folder, "p", largest_bytes=1000, kept=2)
    for number, size in enumerate(sizes):
        log.write(f"{number}:{'x' * size}", clock=noon)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * 1000
    numbers = [int(entry["text"].partition(":")[0]) for entry in read_log(folder, "p")]
    assert numbers == list(range(len(sizes)))[len(sizes) - len(numbers) :]
    assert not sizes or numbers


def test_a_full_disk_is_counted_and_never_raised(tmp_path):
    log = ProcessLog(tmp_path / "absent", "p")
    log.write("one")
    log.write("two")
    assert log.lost == 2
    assert "2 log lines were lost" in log.problem


def test_reading_merges_processes_by_time_and_skips_torn_lines(tmp_path):
    ProcessLog(tmp_path, "b").write("second", clock=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    ProcessLog(tmp_path, "a").write("third", clock=lambda: datetime(2026, 1, 3, tzinfo=UTC))
    ProcessLog(tmp_path, "b").write("first", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('{"time": "2026')
    assert [entry["text"] for entry in read_log(tmp_path)] == ["first", "second", "third"]
