"""Live state: follows a real run, is written at most once a second, and never stops a study."""

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_factory import DirectChannel, make_contract, make_run, make_sites

from fedcad.server.channel import Lost
from fedcad.server.live import WAITING, LiveState, read_live
from fedcad.shared.errors import CheckpointError


class Hands:
    """A clock that is moved by hand, and calls that wait for it."""

    def __init__(self, now: float = 999.0) -> None:
        self.now = now
        self.due: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, call))

    def move(self, seconds: float) -> None:
        self.now += seconds
        ready = [call for when, call in self.due if when <= self.now]
        self.due = [(when, call) for when, call in self.due if when > self.now]
        for call in ready:
            call()


def make(path: Path, hands: Hands, rounds: int = 3) -> LiveState:
    live = LiveState(path, hands.clock, rounds=rounds, later=hands.later)
    hands.move(1.0)
    return live


def test_a_real_run_is_followed(tmp_path: Path) -> None:
    hands, path, seen = Hands(), tmp_path / "live.json", []
    live = make(path, hands)
    contract = make_contract()

    def observe(event: Any) -> None:
        hands.move(2.0)
        live.observe(event)
        found = read_live(path)
        assert found is not None
        seen.append((event["event"], found.round, found.phase, found.waiting_for))

    lost = {("b", 2): lambda plan, update: Lost("connection reset")}
    make_run(tmp_path, contract, DirectChannel(make_sites(contract), lost), observe).run()
    assert seen[:4] == [
        ("started", 1, "training", ("a", "b", "c")),
        ("answered", 1, "training", ("b", "c")),
        ("answered", 1, "training", ("c",)),
        ("answered", 1, "summing", ()),
    ]
    assert ("round", 2, "between rounds", ()) in seen
    live.close("finished")
    found = read_live(path)
    assert found is not None
    assert (found.phase, found.rounds, set(found.sites)) == ("finished", 3, {"a", "b", "c"})


def test_contacts_versions_and_silence(tmp_path: Path) -> None:
    hands = Hands()
    live = make(tmp_path / "live.json", hands)
    live.contact("a", "ready", "0.1.0")
    hands.move(5.0)
    live.observe({"event": "started", "round": 1, "sites": ["a", "b"]})
    live.observe({"event": "answered", "round": 1, "site": "b", "status": "lost", "reason": "cable"})
    hands.move(1.0)
    live.contact("a", "answered")
    hands.move(1.0)
    found = read_live(tmp_path / "live.json")
    assert found is not None
    assert (found.sites["a"].last_contact, found.sites["a"].version) == (1006.0, "0.1.0")
    assert (found.sites["b"].last_contact, found.sites["b"].status, found.sites["b"].reason) == (
        None,
        "lost",
        "cable",
    )


def test_a_wait_shows_its_reason_until_somebody_is_back(tmp_path: Path) -> None:
    hands, path = Hands(), tmp_path / "live.json"
    live = make(path, hands)

    def after(*events: dict[str, Any]) -> tuple[Any, ...]:
        for event in events:
            hands.move(2.0)
            live.observe(event)
        found = read_live(path)
        assert found is not None
        return found.phase, found.reason, found.waiting_for, found.until

    live.waiting("1 of quorum 2", ["c", "b"], 5000.0)
    waits = (WAITING, "1 of quorum 2", ("b", "c"), 5000.0)
    in_vain = {"event": "started", "round": 2, "sites": ["a"]}
    answered = {"event": "answered", "round": 2, "site": "a", "status": "counted"}
    stopped = {"event": "stopped", "round": 2, "reason": "quorum"}
    assert after(in_vain, answered, stopped) == waits
    assert after({"event": "started", "round": 2, "sites": ["a", "b"]}) == ("training", "", ("a", "b"), None)


def test_a_new_process_begins_by_waiting_and_knows_when_sites_were_heard_of(tmp_path: Path) -> None:
    hands, path = Hands(), tmp_path / "live.json"
    first = make(path, hands)
    first.contact("a", "training", "0.1.0")
    first.close()
    make(path, hands)
    found = read_live(path)
    assert found is not None
    assert (found.phase, found.round) == (WAITING, 0)
    site = found.sites["a"]
    assert (site.last_contact, site.version, site.phase, site.status) == (1000.0, "0.1.0", "", "")


def test_a_damaged_file_of_an_earlier_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "live.json").write_text("{")
    make(tmp_path / "live.json", Hands())
    assert read_live(tmp_path / "live.json") is not None


@given(st.lists(st.floats(0.0, 3.0), max_size=30))
@settings(max_examples=40, deadline=None)
def test_written_at_most_once_a_second_and_nothing_is_left_out(tmp_path_factory, pauses) -> None:  # type: ignore[no-untyped-def]
    hands, path = Hands(), tmp_path_factory.mktemp("live") / "live.json"
    live = make(path, hands)
    written: list[float] = []
    for number, pause in enumerate(pauses):
        hands.move(pause)
        live.contact("a", f"phase {number}")
        written.append(json.loads(path.read_text())["updated"])
    hands.move(1.0)
    times = sorted(set(written))
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in pairwise(times))
    if pauses:
        found = read_live(path)
        assert found is not None
        assert found.sites["a"].phase == f"phase {len(pauses) - 1}"


def test_a_clock_set_back_does_not_silence_it(tmp_path: Path) -> None:
    hands = Hands()
    live = make(tmp_path / "live.json", hands)
    live.contact("a", "one")
    hands.move(-500.0)
    live.contact("a", "two")
    found = read_live(tmp_path / "live.json")
    assert found is not None
    assert (found.updated, found.sites["a"].phase) == (500.0, "two")


def test_a_disk_that_refuses_never_stops_a_study_and_is_tried_again(tmp_path: Path) -> None:
    hands, folder = Hands(), tmp_path / "gone"
    live = make(folder / "live.json", hands)
    live.contact("a", "ready")
    assert "No such file" in live.problem
    folder.mkdir()
    hands.move(1.0)
    live.contact("a", "ready")
    assert live.problem == ""
    assert (folder / "live.json").exists()


def test_a_full_disk_never_stops_a_study() -> None:
    live = LiveState(Path("/dev/full/live.json"))
    live.contact("a", "ready")
    live.close()
    assert live.problem


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    hands = Hands()
    live = make(tmp_path / "live.json", hands)
    live.contact("a", "ready")
    live.contact("a", "more")
    live.close("finished")
    before = (tmp_path / "live.json").read_bytes()
    hands.move(10.0)
    live.contact("a", "late")
    assert (tmp_path / "live.json").read_bytes() == before


def test_many_threads(tmp_path: Path) -> None:
    live = LiveState(tmp_path / "live.json", rounds=3)
    threads = [
        threading.Thread(target=lambda name=name: [live.contact(name, "ready") for _ in range(50)])
        for name in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live.close()
    found = read_live(tmp_path / "live.json")
    assert found is not None
    assert set(found.sites) == set("abcdefgh")


def test_without_a_file_there_is_no_state(tmp_path: Path) -> None:
    assert read_live(tmp_path / "live.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"updated": "x"}', b"[" * 5000])
def test_damage_is_a_plain_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "live.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="writes it anew"):
        read_live(tmp_path / "live.json")
