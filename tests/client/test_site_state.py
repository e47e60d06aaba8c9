import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.client.site_state import SiteStateStore
from fedcad.shared.errors import CheckpointError

STUDY = "a" * 64
FIRST = {"c": torch.zeros(3)}


def state(value):
    return {"c": torch.full((3,), float(value))}


def value_of(found):
    return found["c"][0].item()


@pytest.fixture
def store(tmp_path):
    return SiteStateStore(tmp_path, STUDY)


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_before_any_round_the_first_state(store, tmp_path):
    assert value_of(store.begin(0, FIRST)) == 0
    assert value_of(store.selected(0, FIRST)) == 0
    assert files(tmp_path) == []


def test_a_counted_round_is_committed(store, tmp_path):
    store.keep(1, state(1), built_on=0)
    assert value_of(store.begin(1, FIRST)) == 1
    assert files(tmp_path) == ["round-00001.safetensors"]


def test_a_round_that_did_not_count_leaves_no_trace(store, tmp_path):
    store.keep(1, state(1), built_on=0)
    store.begin(1, FIRST)
    store.keep(2, state(99), built_on=1)
    assert value_of(store.begin(1, FIRST)) == 1
    assert files(tmp_path) == ["round-00001.safetensors"]
    assert value_of(store.begin(1, FIRST)) == 1
    store.keep(3, state(3), built_on=1)
    assert value_of(store.begin(3, FIRST)) == 3


def test_a_first_round_that_did_not_count_starts_from_the_first_state(store, tmp_path):
    store.keep(1, state(99), built_on=0)
    assert value_of(store.begin(0, FIRST)) == 0
    assert files(tmp_path) == []
    with pytest.raises(CheckpointError, match="round 1"):
        store.begin(1, FIRST)
    store.keep(2, state(2), built_on=0)
    assert value_of(store.begin(2, FIRST)) == 2


def counted(store, *rounds, selected=0):
    """Rounds that counted, each built on the one before, under a version that stays selected."""
    for last, number in zip((0, *rounds), rounds, strict=False):
        store.keep(number, state(number), built_on=last, selected_round=min(selected, last))
        store.begin(number, FIRST, selected_round=min(selected, number))


def test_a_coordinator_that_goes_back_one_checkpoint_finds_the_state(store, tmp_path):
    counted(store, 1, 2, 4)
    store.keep(5, state(99), built_on=4)
    names = ["pending.safetensors", "round-00002.safetensors", "round-00004.safetensors"]
    assert files(tmp_path) == names
    assert value_of(store.begin(2, FIRST)) == 2
    assert files(tmp_path) == names[1:2]
    store.keep(3, state(3), built_on=2)
    assert value_of(store.begin(3, FIRST)) == 3
    assert value_of(store.begin(2, FIRST)) == 2


def test_two_checkpoints_back_is_refused_and_changes_nothing(store):
    counted(store, 1, 2, 3)
    with pytest.raises(CheckpointError, match="round 1"):
        store.begin(1, FIRST)
    assert value_of(store.begin(3, FIRST)) == 3


def test_a_round_that_is_repeated_after_it_was_committed_is_the_newer_one(store):
    counted(store, 1, 2)
    store.begin(1, FIRST)
    store.keep(2, state(22), built_on=1)
    assert value_of(store.begin(2, FIRST)) == 22


def test_the_state_of_the_selected_version_is_kept_and_others_are_not(store, tmp_path):
    counted(store, *range(1, 10), selected=3)
    assert files(tmp_path) == [f"round-0000{number}.safetensors" for number in (3, 8, 9)]
    assert value_of(store.selected(3, FIRST)) == 3
    store.begin(9, FIRST, selected_round=8)
    assert value_of(store.selected(8, FIRST)) == 8
    with pytest.raises(CheckpointError, match="round 5"):
        store.selected(5, FIRST)
    assert value_of(store.selected(0, FIRST)) == 0


def test_a_coordinator_that_goes_back_finds_what_was_selected_before(store, tmp_path):
    """Version 2 was selected until round 5, of which the checkpoint is lost, preferred version 4."""
    counted(store, 1, 2, 3, 4, 5, selected=2)
    store.begin(5, FIRST, selected_round=4)
    assert files(tmp_path) == [f"round-0000{number}.safetensors" for number in (2, 4, 5)]
    assert value_of(store.begin(4, FIRST, selected_round=2)) == 4
    assert value_of(store.selected(2, FIRST)) == 2


def test_a_version_is_tested_with_the_last_counted_round_up_to_it(store, tmp_path):
    """This site counted in rounds 2 and 7; version 5 was selected."""
    counted(store, 2, 7, 8, 9, selected=5)
    assert value_of(store.selected(2, FIRST)) == 2


def test_the_last_round_is_tested_though_no_plan_came_after_it(store):
    counted(store, 1)
    store.keep(2, state(2), built_on=1, selected_round=1)
    assert value_of(store.selected(2, FIRST)) == 2
    assert value_of(store.selected(1, FIRST)) == 1


def test_a_test_changes_nothing(store, tmp_path):
    counted(store, 1, 2)
    store.keep(3, state(3), built_on=2)
    before = files(tmp_path)
    for number in (0, 1, 2, 3):
        store.selected(number, FIRST)
    assert files(tmp_path) == before
    assert value_of(store.begin(3, FIRST)) == 3


def test_what_an_interrupted_write_left_is_removed(store, tmp_path):
    store.keep(1, state(1), built_on=0)
    pending = next(tmp_path.rglob("pending.safetensors"))
    (pending.parent / ".pending.safetensors.00ff00ff00ff.unfinished").write_bytes(b"half")
    store.keep(2, state(2), built_on=0)
    assert files(tmp_path) == ["pending.safetensors"]


def test_asking_twice_gives_the_same(store):
    store.keep(4, state(4), built_on=0)
    assert value_of(store.begin(4, FIRST)) == value_of(store.begin(4, FIRST)) == 4


def test_state_of_another_round_is_refused(store):
    with pytest.raises(CheckpointError, match="round 3"):
        store.begin(3, FIRST)
    store.keep(1, state(1), built_on=0)
    with pytest.raises(CheckpointError, match="restore the site's state folder"):
        store.begin(2, FIRST)
    # Refusing changes nothing: the coordinator may find its mistake.
    assert value_of(store.begin(1, FIRST)) == 1


def test_a_stateless_algorithm_writes_no_file_and_is_never_refused(store, tmp_path):
    store.keep(1, {}, built_on=0)
    assert store.begin(7, {}) == {}
    assert files(tmp_path) == []


def test_two_studies_do_not_meet(store, tmp_path):
    store.keep(1, state(1), built_on=0)
    assert value_of(SiteStateStore(tmp_path, "b" * 64).begin(0, FIRST)) == 0
    assert value_of(store.begin(1, FIRST)) == 1


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, b"\x08" + b"\0" * 7 + b"{}      "])
def test_damaged_state_is_named(store, tmp_path, content):
    store.keep(1, state(1), built_on=0)
    path = next(tmp_path.rglob("pending.safetensors"))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pending\.safetensors"):
        store.begin(1, FIRST)


def test_views_of_one_tensor_can_be_kept(store):
    whole = torch.arange(6.0)
    store.keep(1, {"a": whole[:3], "b": whole[::2], "c": whole.view(2, 3).T}, built_on=0)
    found = store.begin(1, FIRST)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].tolist() == [0, 2, 4]
    assert torch.equal(found["c"], whole.view(2, 3).T)


class Coordinator:
    """What the coordinator knows after each closed round: checkpoints, of which it may lose the newest."""

    def __init__(self):
        self.checkpoints = [{"round": 0, "last": 0, "selected": 0, "counts": [0]}]

    @property
    def now(self):
        return self.checkpoints[-1]

    def close(self, counts, selects):
        """Close a round; select the version that was validated in it, or keep the one before."""
        now = self.now
        number = now["round"] + 1
        last = number if counts else now["last"]
        selected = now["round"] if selects else now["selected"]
        self.checkpoints.append(
            {"round": number, "last": last, "selected": selected, "counts": [*now["counts"], last]}
        )


steps = st.tuples(*(st.booleans() for _ in range(5)))


@given(st.lists(steps, max_size=14))
@settings(max_examples=150, deadline=None)
def test_whatever_fails_where_every_needed_state_is_there_and_few_files_are(tmp_path_factory, rounds):
    """A counter over counted rounds.

    In each, the plan is lost or not, the answer counts or not, the version is selected or not; then the
    coordinator goes back one checkpoint or not, or tests at once or not.
    """
    folder = tmp_path_factory.mktemp("state")
    store, coordinator, expected = SiteStateStore(folder, STUDY), Coordinator(), {0: 0}
    for reached, answered, selects, goes_back, is_tested in rounds:
        now = coordinator.now
        if reached:
            found = store.begin(now["last"], FIRST, selected_round=now["selected"])
            assert value_of(found) == expected[now["last"]]
            store.keep(
                now["round"] + 1,
                state(value_of(found) + 1),
                built_on=now["last"],
                selected_round=now["selected"],
            )
            if answered:
                expected[now["round"] + 1] = value_of(found) + 1
        coordinator.close(reached and answered, selects)
        if is_tested:
            now = coordinator.now
            tested = now["counts"][now["selected"]]
            assert value_of(store.selected(tested, FIRST)) == expected[tested]
        if goes_back and len(coordinator.checkpoints) > 1:
            # Not twice in a row: two checkpoints are kept.
            coordinator.checkpoints = coordinator.checkpoints[-2:-1]
        assert len(files(folder)) <= 5


def _keep_for_ever(folder, started):
    store = SiteStateStore(folder, STUDY)
    store.begin(1, FIRST)
    started.set()
    while True:
        store.keep(2, {"c": torch.full((50_000,), 2.0)}, built_on=0)


def test_killed_while_writing_leaves_whole_files(store, tmp_path):
    store.keep(1, state(1), built_on=0)
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        started = context.Event()
        process = context.Process(target=_keep_for_ever, args=(tmp_path, started))
        process.start()
        assert started.wait(20)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert value_of(SiteStateStore(tmp_path, STUDY).begin(1, FIRST)) == 1
