import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.process_log import ProcessLog, read_log
from fedcad.shared.supervision import (
    LONGEST_DELAY_S,
    Child,
    Program,
    Supervisor,
    restart_delay,
)

PATIENCE_S = 20.0
LIVES = "import time; print('up', flush=True); time.sleep(60)"
FAMILY = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("grandchild", grandchild.pid, flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from fedcad.shared.process_log import ProcessLog
from fedcad.shared.supervision import Child, Program, Supervisor
code = "from fedcad.shared.supervision import die_with_supervisor as d; d(); print('up', flush=True); "
code += "import time; time.sleep(60)"
child = Child(Program("child", (sys.executable, "-c", code), {}), ProcessLog(Path(sys.argv[1]), "child"))
Supervisor([child], lambda state: print(state["child"]["pid"], flush=True)).run()
"""


def make_child(folder: Path, code: str, name: str = "child") -> Child:
    return Child(Program(name, (sys.executable, "-c", code), dict(os.environ)), ProcessLog(folder, name))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


class Driver:
    """Runs a supervisor in this thread, and a script of conditions and acts beside it."""

    def __init__(self, *children: Child) -> None:
        self.states: list[dict] = []
        self.supervisor = Supervisor(children, self.states.append)
        self.failure: BaseException | None = None

    def run(self, script) -> None:
        def play() -> None:
            try:
                script()
            except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
                self.failure = error
            self.supervisor.stop()

        player = threading.Thread(target=play)
        player.start()
        self.supervisor.run()
        player.join()
        if self.failure:
            raise self.failure


@given(st.integers(-3, 10_000))
def test_delays_grow_and_never_exceed_their_bound(failures):
    assert 0.0 <= restart_delay(failures) <= restart_delay(failures + 1) <= LONGEST_DELAY_S


def test_delays_by_hand():
    assert [restart_delay(failures) for failures in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_kill_9_is_survived_with_everything_that_the_child_had_started(tmp_path):
    child = make_child(tmp_path, FAMILY)
    driver = Driver(child)

    def grandchildren() -> list[int]:
        texts = [entry["text"] for entry in read_log(tmp_path)]
        return [int(text.split()[1]) for text in texts if text.startswith("grandchild")]

    def script() -> None:
        wait_for(lambda: len(grandchildren()) == 1)
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(grandchildren()) == 2)
        assert child.process.pid != first
        wait_for(lambda: not is_alive(grandchildren()[0]))
        assert is_alive(grandchildren()[1])

    driver.run(script)
    assert child.restarts == 1
    assert "SIGKILL" in child.last_exit
    wait_for(lambda: not any(map(is_alive, grandchildren())))  # killed; the kernel takes its moment
    assert child.process is None


def test_what_a_child_prints_is_logged_up_to_its_last_word(tmp_path):
    child = make_child(tmp_path, "print('INFO : one'); print('no line end', end='')")
    driver = Driver(child)
    driver.run(lambda: wait_for(lambda: child.restarts >= 1))
    texts = [entry["text"] for entry in read_log(tmp_path)]
    assert texts[1:3] == ["one", "no line end"]
    assert texts[3].startswith("ended with code 0")


def test_a_program_that_cannot_be_started_is_tried_again_and_named(tmp_path):
    child = Child(Program("gone", ("/nonexistent/program",), {}), ProcessLog(tmp_path, "gone"))
    driver = Driver(child)
    driver.run(lambda: wait_for(lambda: child.restarts >= 1))
    assert "cannot be started: No such file" in child.last_exit
    assert driver.states[0]["gone"]["state"] == "waiting to start"


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("fedcad.shared.supervision.STOP_S", 0.3)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LIVES
    child = make_child(tmp_path, code)
    driver = Driver(child)
    seen: list[int] = []

    def script() -> None:
        wait_for(lambda: any(entry["text"] == "up" for entry in read_log(tmp_path)))
        seen.append(child.process.pid)

    driver.run(script)
    assert not is_alive(seen[0])


def test_children_die_with_a_killed_supervisor(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(lambda: any(entry["text"] == "up" for entry in read_log(tmp_path)))
        parent.kill()
        parent.wait()
        wait_for(lambda: not is_alive(child))
    finally:
        parent.kill()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_supervisor_and_children(tmp_path, kind):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(lambda: any(entry["text"] == "up" for entry in read_log(tmp_path)))
        parent.send_signal(kind)
        assert parent.wait(PATIENCE_S) == 0
        assert not is_alive(child)
    finally:
        parent.kill()


def test_watched_sockets_and_timers_are_served(tmp_path):
    reader, writer = os.pipe()
    supervisor = Supervisor([], lambda _state: None)
    calls: list[str] = []

    def readable() -> None:
        calls.append(os.read(reader, 10).decode())
        supervisor.unwatch(reader)
        supervisor.stop()

    supervisor.watch(reader, readable)
    supervisor.every(3600.0, lambda: (calls.append("timer"), os.write(writer, b"x")))
    supervisor.run()
    os.close(reader)
    os.close(writer)
    assert calls == ["timer", "x"]


def test_a_long_healthy_run_forgives_earlier_failures(tmp_path):
    child = make_child(tmp_path, "raise SystemExit(3)")
    now = 0.0
    for expected in (1.0, 2.0, 4.0):
        child.start(now)
        child.process.wait()
        # Collected by the test; the supervisor looks at the ending through the same path.
        child.process = _Ended(child.process)
        child.reap(now + 5.0)
        assert child.seconds_to_start(now + 5.0) == expected
        now += 100.0
    child.start(now)
    child.process.wait()
    child.process = _Ended(child.process)
    child.reap(now + 61.0)
    assert child.seconds_to_start(now + 61.0) == 1.0
    assert child.last_exit == "ended with code 3 after 61 s"


class _Ended:
    """A process that has ended, under a number that nobody has."""

    def __init__(self, process) -> None:
        self.pid, self.stdout, self._code = 2**22 + 1, process.stdout, process.returncode

    def wait(self) -> int:
        return self._code
