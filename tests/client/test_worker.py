"""The training worker as a real process: killed in training, ended when idle, stopped, asked again."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import joined_site
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict

from fedcad.client.app import SOCKET_KEY, make_client_app, to_worker
from fedcad.client.worker import StopSignal, serve
from fedcad.client.worker_keeper import WorkerKeeper, worker_command
from fedcad.client.worker_protocol import WorkerMessage, connect, read_frame, receive_message, send_message
from fedcad.client.worker_studies import Interruption, Keys, Studies
from fedcad.shared.flower_internals.messages import enter_task, name_message
from fedcad.shared.flower_records import put_texts
from fedcad.shared.messages import SiteInfo, Update

SAVES_EVERY_STEP = """
import sys
from fedcad.client import worker
from fedcad.client.worker_studies import Interruption
worker.Interruption = lambda _, is_stopping: Interruption(0.0, is_stopping)
sys.exit(worker.main(sys.argv[1:]))
"""
HANDED = """
import os, sys
from fedcad.client import worker
os.dup2(int(sys.argv[1]), worker.LISTENER)
sys.exit(worker.main(sys.argv[2:]))
"""
LONG = {"optimizer": {"name": "adam", "learning_rate": 0.01}, "batch_size": 8, "local_steps": 120}


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    return joined_site.join_site(tmp_path_factory.mktemp("joined"), worker_idle_s=1.0)


class Minded:
    """A keeper that is polled by a thread, as the client's supervisor does."""

    def __init__(self, hospital, command=None):
        self.path = hospital.socket
        command = command or worker_command(hospital.folder)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.keeper = WorkerKeeper(
            self.path, command=command, log=hospital.logs / "worker.log", environment=environment
        )
        self.seen = []
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._mind)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ends.set()
        self.thread.join()
        self.keeper.stop()

    def _mind(self):
        while not self.ends.is_set():
            self.keeper.poll(0.05)
            if self.keeper.worker not in (None, *self.seen):
                self.seen.append(self.keeper.worker)

    def ask(self, message):
        with connect(self.path) as connection:
            send_message(connection, message)
            return receive_message(connection)

    def until(self, condition, seconds=60):
        pause = threading.Event()
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            pause.wait(0.02)
        pytest.fail(f"did not come about in {seconds} s")


def expected_answer(hospital, coordinator, contract, asked):
    """What an undisturbed worker answers; leaves nothing in the outbox."""
    keys = Keys(hospital.signing_key(), coordinator.key.public)
    studies = Studies(hospital.site, hospital.folder, keys, interruption=Interruption())
    studies.answer(coordinator.ready(contract))
    kept = studies.answer(asked)
    content = kept.read_bytes()
    kept.unlink()
    return content


def same(answer, content):
    wanted = read_frame(BytesIO(content).readinto)
    assert answer.texts == wanted.texts
    return all(
        np.array_equal(values, wanted.arrays[record][name])
        for record, named in answer.arrays.items()
        for name, values in named.items()
    )


def training_files(hospital):
    return list(hospital.state.glob("outbox/*/*/*.training"))


def through_the_app(hospital, message):
    """Send a message as Flower does, through the thin app; return the answer as the worker gave it."""
    enter_task()
    content = put_texts(message.texts)
    content["vectors"] = ArrayRecord(
        {name: Array(values) for name, values in message.arrays["vectors"].items()}
    )
    asked = Message(content, 1, "train")
    name_message(asked, "m1")
    config = {SOCKET_KEY: str(hospital.socket)}
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    return to_worker("answer", make_client_app()(asked, context).content)


def test_killed_in_training_it_goes_on_and_idle_it_ends_and_asked_again_it_says_the_same(joined):
    hospital, coordinator = joined
    contract = joined_site.make_contract(training=LONG)
    asked = coordinator.train(contract)
    content = expected_answer(hospital, coordinator, contract, asked)
    command = [sys.executable, "-c", SAVES_EVERY_STEP, str(hospital.folder)]
    with Minded(hospital, command) as minded, ThreadPoolExecutor(1) as flower:
        assert isinstance(coordinator.info(minded.ask(coordinator.ready(contract))), SiteInfo)
        reply = flower.submit(through_the_app, hospital, asked)
        minded.until(lambda: training_files(hospital))
        os.kill(minded.keeper.worker, signal.SIGKILL)
        assert same(reply.result(60), content)
        assert len(minded.seen) == 2
        assert training_files(hospital) == []
        minded.until(lambda: minded.keeper.worker is None)
        assert minded.keeper.failures == 0
        assert same(minded.ask(asked), content)
        assert len(minded.seen) == 3
    lines = [json.loads(line) for line in (hospital.logs / "worker.jsonl").read_text().splitlines()]
    said = [line["text"] for line in lines]
    assert sum("goes on after step" in text for text in said) == 1
    assert sum("nobody needed it" in text for text in said) == 1
    assert sum("sent again as it was" in text for text in said) == 1
    assert all(line["process"] == "worker" for line in lines)


def ended(connection):
    try:
        return receive_message(connection) is None
    except ConnectionError:
        return True


def test_stopped_with_its_client_it_saves_and_the_next_one_goes_on(joined):
    hospital, coordinator = joined
    contract = joined_site.make_contract(name="stopped", training=LONG)
    asked = coordinator.train(contract)
    content = expected_answer(hospital, coordinator, contract, asked)
    command = [sys.executable, "-c", SAVES_EVERY_STEP, str(hospital.folder)]
    with Minded(hospital, command) as minded:
        minded.ask(coordinator.ready(contract))
        with connect(minded.path) as connection:
            send_message(connection, asked)
            minded.until(lambda: training_files(hospital))
            os.kill(minded.keeper.worker, signal.SIGTERM)
            assert ended(connection)
        minded.until(lambda: minded.keeper.worker is None)
        assert minded.keeper.failures == 0
        answer = minded.ask(asked)
        assert same(answer, content)
        assert isinstance(coordinator.update(answer), Update)
        error = minded.ask(WorkerMessage("nonsense"))
        assert error.kind == "error"
        assert "ProtocolError" in error.texts["reason"]
        with connect(minded.path) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert receive_message(connection).kind == "error"
        number = minded.keeper.worker
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


PARENT = """
import sys
from pathlib import Path
from fedcad.client.worker import StopSignal, serve
from fedcad.client.worker_keeper import *
keeper = WorkerKeeper(Path(sys.argv[1]), command=worker_command(Path(sys.argv[2])), log=Path(sys.argv[3]))
while keeper.worker is None:
    keeper.poll(1)
print(keeper.worker, flush=True)
sys.stdin.read()
"""


def test_orphan_ends_by_itself(tmp_path):
    """A worker whose client was killed ends, so that the next client's worker is alone."""
    hospital, _ = joined_site.join_site(tmp_path)
    command = [sys.executable, "-c", PARENT, hospital.socket, hospital.folder, tmp_path / "log"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        pause = threading.Event()
        while not hospital.socket.exists():
            pause.wait(0.02)
        with connect(hospital.socket) as connection:
            number = int(client.stdout.readline())
            send_message(connection, WorkerMessage("nonsense"))
            assert receive_message(connection).kind == "error"
        descriptor = os.pidfd_open(number)
        assert not select.select([descriptor], [], [], 0.5)[0]
        client.kill()
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)
    assert "asked to stop" in (hospital.logs / "worker.jsonl").read_text()


class Answers:
    """Studies of which each message brings the next of some errors."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def answer(self, message):
        raise self.errors.pop(0)


def test_after_an_error_of_the_gpu_the_worker_answers_and_ends(tmp_path):
    """CUDA fails in a process after its first such error; a shortage of memory is none."""
    studies = Answers(
        ValueError(), torch.OutOfMemoryError(), torch.AcceleratorError("CUDA error: launch failed")
    )
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as worker:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        ends = worker.submit(serve, listener, studies, StopSignal(), idle_s=60.0, largest_bytes=10**6)
        for kind in ("ValueError", "OutOfMemoryError", "AcceleratorError"):
            assert not ends.done()
            with connect(tmp_path / "s") as connection:
                send_message(connection, WorkerMessage("train"))
                assert kind in receive_message(connection).texts["reason"]
        ends.result(60)
    assert studies.errors == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_worker_does_not_start_on_a_device_that_is_not_there(tmp_path):
    hospital, _ = joined_site.join_site(tmp_path, device="cuda")
    with socket.socket(socket.AF_UNIX) as listener:
        command = [sys.executable, "-c", HANDED, str(listener.fileno()), str(hospital.folder)]
        ended = subprocess.run(command, pass_fds=[listener.fileno()], timeout=100, check=False)
    assert ended.returncode == 1
    said = [json.loads(line) for line in (hospital.logs / "worker.jsonl").read_text().splitlines()]
    assert said[-1]["text"].startswith("the training worker cannot run: site.yaml: device: got cuda; torch ")
    assert said[-1]["text"].endswith("set device: cpu")
