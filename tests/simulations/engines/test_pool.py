import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from engine_apps import make_broken_app, make_echo_app
from flwr.app import ConfigRecord, Message, RecordDict

from fedcad.shared.flower_records import array_record
from fedcad.simulations.engines.in_process import InProcessGrid
from fedcad.simulations.engines.pool import PoolClosed, WorkerPool, default_workers

NODES = {1: {"name": "a"}, 2: {"name": "b"}}
TESTS = Path(__file__).parents[2]


def message(node, what="double", **more):
    array = np.ones(4, dtype=np.float32)
    array.flags.writeable = False
    record = array_record({"model": array})
    return Message(RecordDict({"do": ConfigRecord({"what": what, **more}), "vectors": record}), node, "train")


def ask(grid, *messages):
    replies = list(grid.send_and_receive(messages))
    return {reply.metadata.src_node_id: reply for reply in replies}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_worker_gives_an_error_and_the_next_job_works(workers):
    with WorkerPool(make_echo_app, workers) as pool:
        grid = InProcessGrid(pool, NODES)
        for _ in range(3):
            replies = ask(grid, message(1, "die"), message(2))
            assert replies[1].has_error()
            assert replies[1].error.reason == "the site's process died (exit code -9)"
            assert not replies[2].has_error()
            assert not ask(grid, message(1))[1].has_error()


def test_worker_killed_from_outside_in_the_middle_of_a_job():
    with WorkerPool(make_echo_app, 1) as pool:
        grid = InProcessGrid(pool, NODES)
        pid = int(ask(grid, message(1))[1].content.config_records["facts"]["pid"])
        identities = list(grid.push_messages([message(1, "sleep", seconds=60.0)]))
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        found = []
        while not found:
            found = list(grid.pull_messages(identities))
        assert "exit code -9" in found[0].error.reason
        assert not ask(grid, message(1))[1].has_error()


def test_job_that_cannot_be_sent_fails_alone():
    with WorkerPool(make_echo_app, 1) as pool:
        grid = InProcessGrid(pool, NODES | {3: {"name": lambda: None}})
        assert ask(grid, message(3))[3].has_error()
        assert not ask(grid, message(1))[1].has_error()


def test_app_that_cannot_be_made_is_an_error_for_every_job():
    with WorkerPool(make_broken_app, 1) as pool:
        grid = InProcessGrid(pool, NODES)
        for _ in range(2):
            assert "died" in ask(grid, message(1))[1].error.reason


def test_closed_pool_takes_no_job():
    pool = WorkerPool(make_echo_app, 1)
    with pool:
        ask(InProcessGrid(pool, NODES), message(1))
    with pytest.raises(PoolClosed):
        InProcessGrid(pool, NODES).push_messages([message(1)])


def processes_of(group):
    """Return the live processes of a session, without psutil."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(int(folder.name))
    return found


SCRIPT = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from engine_apps import make_echo_app
sys.path.insert(0, {tests!r})
sys.path.insert(0, {tests!r} + "/simulations/engines")
from test_pool import NODES, InProcessGrid, WorkerPool, ask, message

if __name__ == "__main__":
    with WorkerPool(make_echo_app, 2) as pool:
        grid = InProcessGrid(pool, NODES)
        ask(grid, message(1), message(2))
        with ThreadPoolExecutor(4) as threads, pool.killed_on_error():
            waiting = [
                threads.submit(ask, InProcessGrid(pool, NODES), message(1, "sleep", seconds=120.0))
                for _ in range(4)
            ]
            print("busy", flush=True)
            waiting[0].result()
"""


@pytest.fixture
def busy(tmp_path):
    """A process of its own session with two busy workers and two waiting jobs."""
    script = tmp_path / "busy.py"
    script.write_text(SCRIPT.format(tests=str(TESTS)))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    line = process.stdout.readline()
    assert line == b"busy\n", process.stderr.read()
    yield process
    for pid in processes_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()


def gone_within(group, seconds):
    end = time.monotonic() + seconds
    while processes_of(group):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_ctrl_c_ends_everything_at_once(busy):
    time.sleep(0.3)
    assert len(processes_of(busy.pid)) >= 3
    os.killpg(busy.pid, signal.SIGINT)
    busy.wait(timeout=20)
    assert busy.returncode != 0
    assert gone_within(busy.pid, 2.0), processes_of(busy.pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_end_with_their_parent_however_it_ends(busy, how):
    time.sleep(0.3)
    assert len(processes_of(busy.pid)) >= 3
    os.kill(busy.pid, how)
    busy.wait(timeout=20)
    assert gone_within(busy.pid, 5.0), processes_of(busy.pid)


def test_default_is_the_number_of_cores_that_may_be_used():
    assert default_workers() == len(os.sched_getaffinity(0))
