"""A run folder is read whole, or refused with what is missing and what to do."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folder_factory import write_run

from fedcad.shared.errors import DataError
from fedcad.simulations.report.run_folder import Run, read_journal, read_run

ROUND = {"event": "round", "round": 1, "attempt": 1, "seconds": 2.5, "participation": []}
VALIDATION = {"event": "validation", "version": 1, "sites": {"a": {"loss": 0.5}}, "union": {"loss": 0.5}}


def lines(path: Path, *events: object) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
    return path


def test_everything_is_read(five: Run) -> None:
    assert [site.name for site in five.results.sites] == ["kigali", "lyon", "osaka", "quito", "tromso"]
    assert len(five.journal.rounds) == 12
    assert [event.version for event in five.journal.validations] == list(range(13))
    assert set(five.baselines) == {"pooled", "alone-kigali", "alone-lyon", "alone-osaka", "alone-quito"}
    assert five.environment["python"] == "3.11.2"
    assert not five.journal.torn


def test_folder_without_results_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no results\.json.*--resume"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_run(tmp_path / "absent")


def test_a_folder_of_several_seeds_names_its_runs_in_order(tmp_path: Path) -> None:
    for seed in (2, 10, 1):
        write_run(tmp_path / f"seed-{seed}", rounds=1)
    (tmp_path / "seed-3").mkdir()
    runs = " ".join(str(tmp_path / f"seed-{seed}") for seed in (1, 2, 10))
    with pytest.raises(DataError) as refused:
        read_run(tmp_path)
    assert str(refused.value).endswith(f"a run for each seed; give those that you want instead: {runs}")


@pytest.mark.parametrize("version", [2, "1", None])
def test_other_format_is_refused_by_number(tmp_path: Path, version: object) -> None:
    write_run(tmp_path, rounds=1, changes={"format": version})
    with pytest.raises(DataError, match=f"format is {version!r}.*reads format 1"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": 1}', '{"format": 1, "seed": "one"}'])
def test_damaged_results_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=r"results\.json"):
        read_run(tmp_path)


def test_the_wrong_key_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, changes={"seed": "one"})
    with pytest.raises(DataError, match="seed: Input should be a valid integer"):
        read_run(tmp_path)


def test_configuration_and_environment_may_be_absent_but_not_damaged(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1)
    (tmp_path / "environment.json").unlink()
    assert read_run(tmp_path).environment == {}
    (tmp_path / "configuration.json").write_text("[1]")
    with pytest.raises(DataError, match="got a list, expected an object"):
        read_run(tmp_path)


def test_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    journal = read_journal(lines(tmp_path / "rounds.jsonl", ROUND, VALIDATION, '{"event": "rou'))
    assert (len(journal.rounds), len(journal.validations), journal.torn) == (1, 1, True)


def test_torn_line_before_the_last_is_refused_by_number(tmp_path: Path) -> None:
    path = lines(tmp_path / "rounds.jsonl", ROUND, '{"event": "rou', VALIDATION)
    with pytest.raises(DataError, match="line 2: not an event"):
        read_journal(path)


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_journal_cut_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = lines(tmp_path_factory.mktemp("cut") / "rounds.jsonl", ROUND, VALIDATION)
    whole = path.read_bytes()[:cut]
    path.write_bytes(whole)
    journal = read_journal(path)
    found = len(journal.rounds) + len(journal.validations)
    # A line cut just before its line feed is whole all the same.
    assert found - whole.count(b"\n") in (0, 1)


def test_unknown_events_and_keys_are_ignored(tmp_path: Path) -> None:
    journal = read_journal(lines(tmp_path / "r.jsonl", {"event": "later"}, "", ROUND | {"new": 1}))
    assert len(journal.rounds) == 1
    assert not journal.torn


def test_repeated_events_after_a_resume_count_once_the_last(tmp_path: Path) -> None:
    again = ROUND | {"seconds": 9.0}
    second = ROUND | {"attempt": 2}
    journal = read_journal(lines(tmp_path / "r.jsonl", ROUND, second, again))
    assert [(event.attempt, event.seconds) for event in journal.rounds] == [(1, 9.0), (2, 2.5)]


def test_the_attempt_that_stopped_the_run_is_kept_before_its_repetition(tmp_path: Path) -> None:
    stopped = ROUND | {"event": "stopped", "reason": "quorum"}
    journal = read_journal(lines(tmp_path / "r.jsonl", stopped, ROUND))
    assert [event.event for event in journal.rounds] == ["stopped", "round"]


def test_absent_journal_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "rounds.jsonl").rounds == ()


def test_not_finite_figures_are_absent_figures(tmp_path: Path) -> None:
    text = json.dumps(VALIDATION).replace("0.5", "Infinity")
    journal = read_journal(lines(tmp_path / "r.jsonl", text))
    assert journal.validations[0].union.loss is None
