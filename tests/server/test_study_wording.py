"""First lines, by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.server.live import SiteLive
from fedcad.server.study_state import Miss, SiteView, State, StudyView
from fedcad.server.study_wording import first_line, in_words, losses, ranges

NOW = 1_000_000.0


def view(state: State, **changes: Any) -> StudyView:
    return StudyView("chest", 2, state, **({"rounds": 20, "round": 2, "current": 3} | changes))


def site(name: str, *rounds: int) -> SiteView:
    misses = (Miss("lost", "cable", rounds),) if rounds else ()
    return SiteView(name, SiteLive(), {}, misses)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (view(State.RUNNING), "chest v2: running, round 3 of 20"),
        (view(State.RUNNING, round=20), "chest v2: running, all 20 rounds are closed, last validation"),
        (view(State.FINISHED, round=20), "chest v2: finished, 20 of 20 rounds"),
        (view(State.STARTING, round=0), "chest v2: starting, no round closed yet"),
        (view(State.PAUSED, reason="holiday"), "chest v2: paused after round 2 of 20; holiday"),
        (view(State.FAILED, reason="no quorum"), "chest v2: FAILED after round 2 of 20; no quorum"),
        (
            view(State.RUNNING, sites=(site("a"), site("b", 1, 2), site("c", 2))),
            "chest v2: running, round 3 of 20; WITHOUT b (rounds 1-2), c (round 2)",
        ),
        (
            view(State.WAITING, reason="1 of quorum 2", waiting_for=("b", "c")),
            "chest v2: WAITING FOR SITES, round 3 of 20; 1 of quorum 2; missing b, c",
        ),
        (
            view(State.WAITING, reason="missing: b lost (cable)", waiting_for=("b",)),
            "chest v2: WAITING FOR SITES, round 3 of 20; missing: b lost (cable)",
        ),
    ],
)
def test_first_lines(shown: StudyView, expected: str) -> None:
    assert first_line(shown, NOW) == expected


def test_a_wait_says_until_when() -> None:
    line = first_line(view(State.WAITING, until=NOW + 3 * 3600), NOW)
    assert "gives up at 1970-01-12" in line
    assert line.endswith("(3 h from now)")


def test_losses_name_the_most_absent_first() -> None:
    shown = view(State.FINISHED, sites=(site("a", 1), site("b", 1, 3, 4), site("c")))
    assert losses(shown) == "WITHOUT b (rounds 1, 3-4), a (round 1)"
    assert losses(view(State.FINISHED)) == ""


def test_many_rounds_and_sites_stay_one_readable_line() -> None:
    sites = tuple(site(f"s{number}", *range(1, 1000, 7)) for number in range(9))
    line = losses(view(State.FINISHED, sites=sites))
    assert line.startswith("WITHOUT s0 (143 rounds, last 995), s1 (")
    assert line.endswith("s5 (143 rounds, last 995), and 3 more sites")
    assert losses(view(State.FINISHED, sites=(site("a", *range(1, 500)),))) == "WITHOUT a (rounds 1-499)"


@given(st.sets(st.integers(1, 60)))
def test_ranges_say_every_number_once(numbers: set[int]) -> None:
    said: list[int] = []
    for part in filter(None, ranges(numbers).split(", ")):
        first, _, last = part.partition("-")
        said += range(int(first), int(last or first) + 1)
    assert said == sorted(numbers)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172800, "2 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
