import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from engine_apps import make_echo_app
from flwr.app import ConfigRecord, Message, RecordDict

from fedcad.shared.flower_records import array_record
from fedcad.simulations.engines.in_process import InProcessGrid
from fedcad.simulations.engines.pool import PoolClosed, WorkerPool

NODES = {1: {"name": "a"}, 2: {"name": "b"}, 3: {"name": "c"}}


@pytest.fixture
def grid(shared_pool):
    return InProcessGrid(shared_pool, NODES)


def message(node, record, what="double", **more):
    return Message(RecordDict({"do": ConfigRecord({"what": what, **more}), "vectors": record}), node, "train")


def vectors(value=1.0, size=1000):
    array = np.full(size, value, dtype=np.float32)
    array.flags.writeable = False
    return array_record({"model": array})


def by_node(replies):
    return {reply.metadata.src_node_id: reply for reply in replies}


def arrays(reply):
    return reply.content.array_records["arrays"]["model"].numpy()


def test_every_node_answers_with_its_own_configuration(grid):
    record = vectors(3.0)
    assert set(grid.get_node_ids()) == {1, 2, 3}
    replies = by_node(grid.send_and_receive([message(node, record) for node in NODES]))
    for node, config in NODES.items():
        facts = replies[node].content.config_records["facts"]
        assert facts["name"] == config["name"]
        assert facts["is_read_only"] is True
        assert np.array_equal(arrays(replies[node]), np.full(1000, 6.0, np.float32))
        assert not arrays(replies[node]).flags.writeable


def test_a_site_cannot_change_what_another_reads(grid):
    record = vectors(3.0)
    for _ in range(3):
        replies = list(grid.send_and_receive([message(1, record, "scribble"), message(2, record)]))
        assert by_node(replies)[1].content.config_records["facts"]["errors"] == 2
        assert arrays(by_node(replies)[2])[0] == 6.0
    assert record["model"].numpy()[0] == 3.0


def test_replies_are_not_overwritten_by_later_ones(grid):
    """A worker reuses its reply blocks, but none that is still read: what was received before must stay."""
    replies = [next(iter(grid.send_and_receive([message(1, vectors(float(n)))]))) for n in range(6)]
    assert [arrays(reply)[0] for reply in replies] == [0, 2, 4, 6, 8, 10]


def test_replies_of_growing_and_shrinking_size(grid):
    for size in (10, 100_000, 5, 300_000, 0, 7):
        [reply] = grid.send_and_receive([message(1, vectors(2.0, size))])
        assert np.array_equal(arrays(reply), np.full(size, 4.0, np.float32))


def test_errors_become_error_replies(grid):
    reasons = {}
    for what in ("raise", "refuse", "error"):
        [reply] = grid.send_and_receive([message(1, vectors(), what)])
        assert reply.has_error()
        reasons[what] = reply.error.reason
    assert reasons == {
        "raise": "ZeroDivisionError: by nothing",
        "refuse": "the table is empty",
        "error": "as asked",
    }


def test_blocks_are_shared_by_messages_with_one_record_and_freed_with_it(grid):
    record = vectors()
    list(grid.send_and_receive([message(node, record) for node in NODES]))
    assert len(grid._blocks) == 1
    del record
    gc.collect()
    assert grid._blocks == {}


def test_a_broadcasts_block_is_used_again_once_nobody_reads_it(grid):
    record = vectors(1.0)
    list(grid.send_and_receive([message(node, record) for node in NODES]))
    [first] = [lent.block for lent in grid._blocks.values()]
    before = first.identity
    del record
    gc.collect()
    for value in (2.0, 3.0):
        record = vectors(value, 900)
        replies = list(grid.send_and_receive([message(node, record) for node in NODES]))
        assert [lent.block for lent in grid._blocks.values()] == [first]
        assert first.identity != before
        assert all(arrays(reply).tolist() == [2 * value] * 900 for reply in replies)
        del record
        gc.collect()


def test_a_block_that_a_late_site_still_reads_is_not_written(grid):
    record = vectors(1.0)
    [late] = grid.push_messages([message(1, record, "sleep-then-double", seconds=1.0)])
    [early] = [lent.block for lent in grid._blocks.values()]
    del record
    gc.collect()
    [reply] = grid.send_and_receive([message(2, vectors(5.0))])
    assert arrays(reply)[0] == 10.0
    assert all(lent.block is not early for lent in [*grid._blocks.values(), *grid._left])
    found = []
    while not found:
        found = list(grid.pull_messages([late]))
    assert arrays(found[0])[0] == 2.0


@pytest.mark.parametrize("size", [10_000, 10])
def test_a_block_of_a_very_different_size_is_not_kept(grid, size):
    record = vectors(1.0, 2000)
    list(grid.send_and_receive([message(1, record)]))
    [first] = [lent.block for lent in grid._blocks.values()]
    del record
    gc.collect()
    [reply] = grid.send_and_receive([message(1, vectors(7.0, size))])
    assert arrays(reply).tolist() == [14.0] * size
    assert all(lent.block is not first for lent in [*grid._blocks.values(), *grid._left])


def test_replies_to_other_questions_are_kept_for_who_asks(grid):
    first = list(grid.push_messages([message(1, vectors(1.0))]))
    second = list(grid.push_messages([message(2, vectors(2.0))]))
    found = []
    while not found:
        found = list(grid.pull_messages(second))
    assert found[0].metadata.reply_to_message_id == second[0]
    later = []
    while not later:
        later = list(grid.pull_messages(first))
    assert arrays(later[0])[0] == 2.0


def test_many_interleaved_blocks_on_one_worker():
    """Blocks are remembered by both sides; the two memories must agree on what was sent."""
    with WorkerPool(make_echo_app, 1) as pool:
        grids = [InProcessGrid(pool, NODES) for _ in range(7)]
        records = [vectors(float(number)) for number in range(7)]
        order = [0, 1, 2, 3, 0, 4, 0, 5, 1, 0, 6, 2, 0, 1, 3, 4, 0, 6, 5, 0, 1, 1, 2]
        for number in order:
            [reply] = grids[number].send_and_receive([message(1, records[number])])
            assert not reply.has_error(), reply.error
            assert arrays(reply)[0] == 2.0 * number


def blocks_here():
    """Descriptors of shared blocks that this process holds."""
    return sum("memfd" in str(path.resolve()) for path in descriptors_here())


def descriptors_here():
    return [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def falls_to(count, limit):
    """Whether a count falls to a limit, once the pool's threads have let their last job go."""
    for _ in range(100):
        if count() <= limit:
            return True
        gc.collect()
        time.sleep(0.02)
    return False


def test_two_hundred_jobs_leak_nothing():
    """One worker, so that each batch needs the same blocks.

    With two, one of them may take both messages of a pair, and then keeps a second block for replies: the
    first is still read. That is at most one block for each reply that is held at once, and no leak.
    """
    gc.collect()
    shm, others = set(Path("/dev/shm").iterdir()), blocks_here()
    with WorkerPool(make_echo_app, 1) as pool:
        grid = InProcessGrid(pool, NODES)

        def in_worker():
            [reply] = grid.send_and_receive([message(1, vectors(), "descriptors")])
            return int(reply.content.config_records["facts"]["count"])

        def batch(pairs):
            for number in range(pairs):
                record = vectors(float(number), 10_000)
                list(grid.send_and_receive([message(node, record) for node in (1, 2)]))

        batch(10)
        assert falls_to(blocks_here, others + 6), "two for replies, one for broadcasts: open and mapped"
        here, there = len(descriptors_here()), in_worker()
        batch(100)
        assert falls_to(blocks_here, others + 6)
        assert falls_to(lambda: len(descriptors_here()), here)
        assert falls_to(in_worker, there)
    assert falls_to(blocks_here, others + 2), "a closed pool keeps none, the grid one"
    assert set(Path("/dev/shm").iterdir()) <= shm


def test_nothing_arrives_after_a_kill():
    with WorkerPool(make_echo_app, 1) as pool:
        grid = InProcessGrid(pool, NODES)
        identities = list(grid.push_messages([message(1, vectors(), "sleep", seconds=30.0)]))
        threading.Timer(0.3, pool.kill).start()
        with pytest.raises(PoolClosed):
            while True:
                assert list(grid.pull_messages(identities)) == []
        with pytest.raises(PoolClosed):
            list(grid.push_messages([message(1, vectors())]))


def test_a_grid_in_memory_has_no_flower_run(grid):
    with pytest.raises(NotImplementedError):
        _ = grid.run
    made = grid.create_message(RecordDict(), "query", 2, "1")
    assert made.metadata.dst_node_id == 2
