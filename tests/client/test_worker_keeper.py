"""The keeper with real processes: one worker at most, started by a connection, again after any end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fedcad.client.worker_keeper import WorkerKeeper, worker_command
from fedcad.client.worker_protocol import bind, connect

ONE_LINE = """
import os, socket, sys
listener = socket.socket(fileno=3)
connection, _ = listener.accept()
said = connection.recv(100).decode()
if said.startswith("exit"):
    os._exit(int(said[4:]))
connection.sendall(f"{os.getpid()} {sorted(map(int, os.listdir('/proc/self/fd')))[:5]}".encode())
connection.recv(1)
"""


def make(tmp_path, script=ONE_LINE, **more):
    command = [sys.executable, "-S", "-c", script]
    return WorkerKeeper(tmp_path / "run" / "worker.sock", command=command, log=tmp_path / "out.log", **more)


@pytest.fixture
def keeper(tmp_path):
    with make(tmp_path) as keeper:
        yield keeper


def talk(keeper, tmp_path, said=b"hello"):
    """Say something to a worker, polling as the supervisor does; return what it says before it closes."""
    with connect(tmp_path / "run" / "worker.sock") as connection:
        connection.sendall(said)
        connection.setblocking(False)
        while True:
            keeper.poll(0.02)
            try:
                return connection.recv(1000).decode()
            except BlockingIOError:
                continue


def until(keeper, condition):
    for _ in range(500):
        if condition():
            return
        keeper.poll(0.02)
    pytest.fail("did not come about in 10 s")


def test_socket_is_private_and_starts_nothing_by_itself(keeper, tmp_path):
    path = tmp_path / "run" / "worker.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    keeper.poll(0.01)
    assert keeper.worker is None


def test_a_connection_starts_a_worker_and_the_next_one_starts_the_next(keeper, tmp_path):
    first = talk(keeper, tmp_path)
    assert first.split()[0] == str(keeper.worker)
    assert "0, 1, 2, 3" in first
    until(keeper, lambda: keeper.worker is None)
    second = talk(keeper, tmp_path)
    assert second.split()[0] not in ("", first.split()[0])
    assert keeper.failures == 0


def test_connection_made_while_a_worker_is_killed_waits_for_the_next(keeper, tmp_path):
    with connect(tmp_path / "run" / "worker.sock") as first:
        first.sendall(b"hello")
        until(keeper, lambda: keeper.worker is not None)
        assert first.recv(1000)
        killed = keeper.worker
        with connect(tmp_path / "run" / "worker.sock") as waiting:
            waiting.sendall(b"hello")
            os.kill(killed, signal.SIGKILL)
            until(keeper, lambda: keeper.worker not in (None, killed))
            assert waiting.recv(1000).split()[0] == str(keeper.worker).encode()
            assert first.recv(1000) == b""


def test_never_two_workers(keeper, tmp_path):
    path = tmp_path / "run" / "worker.sock"
    connections = [connect(path) for _ in range(4)]
    seen = set()
    for _ in range(30):
        keeper.poll(0.01)
        children = subprocess.run(
            ["pgrep", "-P", str(os.getpid()), "-f", "listener.accept"], capture_output=True
        )
        seen.add(len(children.stdout.split()))
    for connection in connections:
        connection.close()
    assert seen <= {0, 1}


def test_worker_that_cannot_start_is_tried_later_each_time_and_nobody_waits_for_it(tmp_path):
    now, pauses, turned_away = [100.0], [], []
    with make(tmp_path, "raise SystemExit(5)", clock=lambda: now[0]) as keeper:
        for number in range(1, 6):
            with connect(tmp_path / "run" / "worker.sock") as connection:
                connection.setblocking(False)
                until(keeper, lambda number=number: keeper.failures == number)
                turned_away.append(is_closed(connection))
            with connect(tmp_path / "run" / "worker.sock"):
                before = now[0]
                while keeper.worker is None:
                    keeper.poll(0)
                    now[0] += 0.25
                pauses.append(now[0] - before - 0.25)
    assert pauses[0] == 0
    assert pauses[1:] == pytest.approx([1, 2, 4, 8], abs=0.3)
    assert turned_away == [False, False, True, True, True]


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_command_that_does_not_exist_is_a_failure_and_not_the_end(tmp_path):
    failing = WorkerKeeper(tmp_path / "w.sock", command=["/does/not/exist"], log=tmp_path / "log")
    with failing as keeper, connect(tmp_path / "w.sock"):
        until(keeper, lambda: keeper.failures == 1)


def test_clean_end_and_late_failure_do_not_count(tmp_path):
    now = [0.0]
    with make(tmp_path, clock=lambda: now[0]) as keeper:
        for said, later, failures in (
            (b"exit7", 0, 1),
            (b"exit0", 0, 0),
            (b"exit7", 0, 1),
            (b"exit7", 100, 0),
        ):
            with connect(tmp_path / "run" / "worker.sock") as connection:
                until(keeper, lambda: keeper.worker is not None)
                now[0] += later
                connection.sendall(said)
                until(keeper, lambda: keeper.worker is None)
            assert keeper.failures == failures


def test_stop_ends_the_worker_and_removes_the_socket(tmp_path):
    keeper = make(tmp_path, "import time\ntime.sleep(60)")
    with connect(tmp_path / "run" / "worker.sock"):
        until(keeper, lambda: keeper.worker is not None)
        number = keeper.worker
        keeper.stop()
    assert not (tmp_path / "run" / "worker.sock").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_socket_that_a_dead_client_left_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        bind(left, tmp_path / "run" / "worker.sock")
    with make(tmp_path) as keeper:
        assert talk(keeper, tmp_path) != ""


def test_socket_at_which_a_dead_clients_worker_still_listens_is_replaced(tmp_path):
    """After a kill -9 of the client its worker finishes a step; the next client must not fail meanwhile."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as orphans:
        bind(orphans, tmp_path / "run" / "worker.sock")
        orphans.listen(1)
        with make(tmp_path) as keeper:
            assert talk(keeper, tmp_path) != ""


def test_poll_returns_when_the_time_is_over(keeper, tmp_path):
    started = time.monotonic()
    keeper.poll(0.05)
    with connect(tmp_path / "run" / "worker.sock"):
        until(keeper, lambda: keeper.worker is not None)
        keeper.poll(0.05)
    assert time.monotonic() - started < 10


def test_output_of_the_worker_is_kept_privately(tmp_path):
    (tmp_path / "out.log").write_text("x" * (2**20 + 1))
    (tmp_path / "out.log").chmod(0o600)
    printing = make(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)")
    with printing as keeper, connect(tmp_path / "run" / "worker.sock"):
        until(keeper, lambda: keeper.worker is not None)
        until(keeper, lambda: keeper.worker is None)
        assert keeper.failures == 0
    assert "out" in (tmp_path / "out.log").read_text()
    assert "err" in (tmp_path / "out.log").read_text()
    assert (tmp_path / "out.log").stat().st_size < 100
    assert (tmp_path / "out.log").stat().st_mode & 0o777 == 0o600


def test_works_from_a_thread(tmp_path):
    ends = threading.Event()
    with make(tmp_path) as keeper:

        def mind():
            while not ends.is_set():
                keeper.poll(0.02)

        minder = threading.Thread(target=mind)
        minder.start()
        with connect(tmp_path / "run" / "worker.sock") as connection:
            connection.sendall(b"hello")
            assert connection.recv(100)
        ends.set()
        minder.join()


def test_command_names_the_module_and_the_folder(tmp_path):
    assert worker_command(tmp_path)[1:] == ["-P", "-m", "fedcad.client.worker", str(tmp_path)]


def test_keeper_imports_no_torch():
    code = "import fedcad.client.worker_keeper, sys; print({'torch', 'flwr', 'pydicom'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"
