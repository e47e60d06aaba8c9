import multiprocessing

import pytest
import torch
from hypothesis import given
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
    assert value_of(store.committed(FIRST)) == 0
    assert files(tmp_path) == []


def test_a_counted_round_is_committed(store, tmp_path):
    store.keep(1, state(1))
    assert value_of(store.committed(FIRST)) == 0
    assert value_of(store.begin(1, FIRST)) == 1
    assert value_of(store.committed(FIRST)) == 1
    assert files(tmp_path) == ["committed.safetensors"]


def test_a_round_that_did_not_count_leaves_no_trace(store, tmp_path):
    store.keep(1, state(1))
    store.begin(1, FIRST)
    store.keep(2, state(99))
    assert value_of(store.begin(1, FIRST)) == 1
    assert files(tmp_path) == ["committed.safetensors"]
    assert value_of(store.begin(1, FIRST)) == 1
    store.keep(3, state(3))
    assert value_of(store.begin(3, FIRST)) == 3


def test_a_first_round_that_did_not_count_starts_from_the_first_state(store, tmp_path):
    store.keep(1, state(99))
    assert value_of(store.begin(0, FIRST)) == 0
    assert files(tmp_path) == []
    with pytest.raises(CheckpointError, match="round 1"):
        store.begin(1, FIRST)
    store.keep(2, state(2))
    assert value_of(store.begin(2, FIRST)) == 2


def counted(store, *rounds):
    for number in rounds:
        store.keep(number, state(number))
        store.begin(number, FIRST)


def test_a_coordinator_that_goes_back_one_checkpoint_finds_the_state(store, tmp_path):
    counted(store, 1, 2, 4)
    store.keep(5, state(99))
    assert files(tmp_path) == ["committed.safetensors", "pending.safetensors", "previous.safetensors"]
    assert value_of(store.begin(2, FIRST)) == 2
    assert files(tmp_path) == ["committed.safetensors"]
    assert value_of(store.committed(FIRST)) == 2
    store.keep(3, state(3))
    assert value_of(store.begin(3, FIRST)) == 3
    assert value_of(store.begin(2, FIRST)) == 2


def test_two_checkpoints_back_is_refused_and_changes_nothing(store):
    counted(store, 1, 2, 3)
    with pytest.raises(CheckpointError, match="round 1"):
        store.begin(1, FIRST)
    assert value_of(store.begin(3, FIRST)) == 3


def test_killed_between_the_renames_of_a_commit_loses_nothing(store, tmp_path):
    counted(store, 1)
    store.keep(2, state(2))
    committed = next(tmp_path.rglob("committed.safetensors"))
    committed.rename(committed.with_name("previous.safetensors"))
    assert value_of(store.committed(FIRST)) == 1
    assert value_of(store.begin(2, FIRST)) == 2
    assert value_of(store.begin(1, FIRST)) == 1


def test_what_an_interrupted_write_left_is_removed(store, tmp_path):
    store.keep(1, state(1))
    pending = next(tmp_path.rglob("pending.safetensors"))
    (pending.parent / ".pending.safetensors.00ff00ff00ff.unfinished").write_bytes(b"half")
    store.keep(2, state(2))
    assert files(tmp_path) == ["pending.safetensors"]


def test_asking_twice_gives_the_same(store):
    store.keep(4, state(4))
    assert value_of(store.begin(4, FIRST)) == value_of(store.begin(4, FIRST)) == 4


def test_state_of_another_round_is_refused(store):
    with pytest.raises(CheckpointError, match="round 3"):
        store.begin(3, FIRST)
    store.keep(1, state(1))
    with pytest.raises(CheckpointError, match="restore the site's state folder"):
        store.begin(2, FIRST)
    # Refusing changes nothing: the coordinator may find its mistake.
    assert value_of(store.begin(1, FIRST)) == 1


def test_a_stateless_algorithm_writes_no_file_and_is_never_refused(store, tmp_path):
    store.keep(1, {})
    assert store.begin(7, {}) == {}
    assert files(tmp_path) == []


def test_two_studies_do_not_meet(store, tmp_path):
    store.keep(1, state(1))
    assert value_of(SiteStateStore(tmp_path, "b" * 64).begin(0, FIRST)) == 0
    assert value_of(store.begin(1, FIRST)) == 1


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, b"\x08" + b"\0" * 7 + b"{}      "])
def test_damaged_state_is_named(store, tmp_path, content):
    store.keep(1, state(1))
    path = next(tmp_path.rglob("pending.safetensors"))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pending\.safetensors"):
        store.begin(1, FIRST)


def test_views_of_one_tensor_can_be_kept(store):
    whole = torch.arange(6.0)
    store.keep(1, {"a": whole[:3], "b": whole[::2], "c": whole.view(2, 3).T})
    found = store.begin(1, FIRST)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].tolist() == [0, 2, 4]
    assert torch.equal(found["c"], whole.view(2, 3).T)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_state_is_that_of_the_counted_rounds_only(tmp_path_factory, rounds):
    """Whatever fails where: a counter over counted rounds equals the number of counted rounds."""
    store = SiteStateStore(tmp_path_factory.mktemp("state"), STUDY)
    last, counted = 0, 0
    for number, (answers, counts) in enumerate(rounds, start=1):
        found = store.begin(last, FIRST)
        assert value_of(found) == counted
        if answers:
            store.keep(number, state(value_of(found) + 1))
            if counts:
                last, counted = number, counted + 1


def _keep_for_ever(folder, started):
    store = SiteStateStore(folder, STUDY)
    store.begin(1, FIRST)
    started.set()
    while True:
        store.keep(2, {"c": torch.full((50_000,), 2.0)})


def test_killed_while_writing_leaves_whole_files(store, tmp_path):
    store.keep(1, state(1))
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
