import os
import signal
import subprocess
import sys

import pytest

from fedcad.shared.errors import UnsupportedError
from fedcad.shared.instance_lock import InstanceLock, holder_of, stop_holder

HOLD = """
import signal, sys, time
from pathlib import Path
from fedcad.shared.instance_lock import InstanceLock
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with InstanceLock(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    started: list[subprocess.Popen[str]] = []

    def start(how: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), how]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path, holder):
    process = holder()
    assert holder_of(tmp_path / "lock") == process.pid
    with pytest.raises(UnsupportedError, match=f"node of north is running already .process {process.pid}"):
        InstanceLock(tmp_path / "lock", "the node of north").__enter__()


def test_the_lock_ends_with_kill_9_of_its_holder(tmp_path, holder):
    process = holder()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert holder_of(tmp_path / "lock") is None
    with InstanceLock(tmp_path / "lock", "x"):
        assert holder_of(tmp_path / "lock") == os.getpid()
    assert holder_of(tmp_path / "lock") is None


def test_a_holder_is_stopped_from_elsewhere(tmp_path, holder):
    process = holder()
    # Its end is noticed by the lock; as its parent, this test must also collect it.
    assert stop_holder(tmp_path / "lock") == process.pid
    assert process.wait() == -signal.SIGTERM
    assert stop_holder(tmp_path / "lock") is None


def test_a_holder_that_does_not_stop_is_named(tmp_path, holder):
    process = holder("stubborn")
    with pytest.raises(UnsupportedError, match=f"process {process.pid} has not stopped"):
        stop_holder(tmp_path / "lock", patience_s=0.3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "1; rm"}', b'{"pid": 1}', b'{"pid": -5}'])
def test_nobody_is_signalled_because_of_what_stands_in_the_file(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    assert stop_holder(tmp_path / "lock") is None
    with InstanceLock(tmp_path / "lock", "x"):
        (tmp_path / "lock").write_bytes(content)
        assert holder_of(tmp_path / "lock") is None
