import gc
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from fedcad.simulations.engines.shared_arrays import SharedBlock, place, write

ARRAYS = {
    "model": np.arange(5, dtype=np.float32),
    "none": np.zeros(0, dtype=np.float32),
    "scalar": np.array(7, dtype=np.int64),
    "table": np.arange(6, dtype=np.int64).reshape(2, 3),
}


def written(arrays):
    places, size = place(arrays)
    block = SharedBlock.create(size)
    write(arrays, places, block)
    return places, block


def test_arrays_come_back_as_they_were():
    places, block = written(ARRAYS)
    for item in places:
        assert np.array_equal(item.view(block), ARRAYS[item.name])
        assert item.view(block).dtype == ARRAYS[item.name].dtype
        assert item.offset % 64 == 0


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        stn.arrays(
            st.sampled_from([np.float32, np.int64, np.uint8]),
            stn.array_shapes(min_dims=0, max_dims=3, min_side=0),
        ),
        max_size=5,
    ),
    st.integers(0, 3),
)
def test_places_do_not_overlap(arrays, start):
    places, end = place(arrays, start * 64)
    last = start * 64
    for item in places:
        assert item.offset >= last
        last = item.offset + arrays[item.name].nbytes
    assert last <= end
    block = SharedBlock.create(end)
    write(arrays, places, block)
    for item in places:
        np.testing.assert_array_equal(item.view(block), arrays[item.name])


def test_non_contiguous_arrays_are_copied_by_value():
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    places, block = written({"turned": table.T, "every": table[:, ::2]})
    assert np.array_equal(places[0].view(block), table.T)
    assert np.array_equal(places[1].view(block), table[:, ::2])


def descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_descriptors_and_memory_are_freed():
    before, shm = descriptors(), set(Path("/dev/shm").iterdir())
    for _ in range(100):
        written({"model": np.zeros(10_000, dtype=np.float32)})
    gc.collect()
    assert descriptors() <= before
    assert set(Path("/dev/shm").iterdir()) <= shm


def test_memory_outlives_the_block_while_a_view_does():
    places, block = written(ARRAYS)
    view = places[0].view(block)
    del block
    gc.collect()
    assert np.array_equal(view, ARRAYS["model"])


def _answer(connection):
    block = SharedBlock.receive(connection, is_writable=False)
    place_of_model = connection.recv()
    view = place_of_model.view(block)
    try:
        view.flags.writeable = True
        outcome = "changed"
    except ValueError:
        outcome = "refused"
    connection.send((outcome, float(view.sum())))


def test_another_process_sees_the_block_and_cannot_change_it():
    places, block = written(ARRAYS)
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs,))
    process.start()
    block.send(ours, process.pid)
    ours.send(places[0])
    assert ours.poll(30)
    assert ours.recv() == ("refused", 10.0)
    process.join()


def test_blocks_have_their_own_names():
    assert SharedBlock.create(1).identity != SharedBlock.create(1).identity


def test_failed_mapping_leaves_no_descriptor(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"")
    before = descriptors()
    descriptor = os.open(path, os.O_RDWR)
    with pytest.raises((ValueError, OSError)):
        SharedBlock(descriptor, 100, "x")
    gc.collect()
    assert descriptors() <= before


def test_a_renamed_block_is_another_one_with_the_same_memory():
    places, block = written(ARRAYS)
    before, view = block.identity, places[0].view(block)
    block.views[places[0]] = "a reader's note"
    block.rename()
    assert block.identity != before
    assert block.views == {}
    write({**ARRAYS, "model": ARRAYS["model"] + 1}, places, block)
    assert np.array_equal(view, ARRAYS["model"] + 1)
