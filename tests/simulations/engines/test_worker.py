"""The worker's loop in this process, over a real pipe."""

import threading
from multiprocessing import Pipe

import numpy as np
import pytest
import torch
from engine_apps import make_echo_app

import fedcad.simulations.engines.worker as worker_module
from fedcad.simulations.engines.packing import Packed
from fedcad.simulations.engines.shared_arrays import SharedBlock, place, write
from fedcad.simulations.engines.worker import Job, Result, work

METADATA = {
    "run_id": 1,
    "message_id": "m1",
    "src_node_id": 1,
    "dst_node_id": 2,
    "reply_to_message_id": "",
    "group_id": "1",
    "created_at": 1.0,
    "ttl": 60.0,
    "message_type": "train",
}


@pytest.fixture
def connection(monkeypatch):
    # In a thread of this process: signals belong to the main one.
    monkeypatch.setattr(worker_module.signal, "signal", lambda *_: None)
    ours, theirs = Pipe()
    import os

    thread = threading.Thread(target=work, args=(theirs, os.getpid(), make_echo_app))
    thread.start()
    yield ours
    ours.close()
    thread.join(timeout=20)
    assert not thread.is_alive(), "a worker ends when the other end closes the connection"


def job(what, *, block=None, places=()):
    arrays = {"vectors": places} if places else {}
    return Job(2, {"name": "b"}, METADATA, block, Packed(arrays, {"do": {"what": what}}))


def received(connection):
    """Take a result and, where one follows, the block of replies."""
    result = connection.recv()
    if result.has_new_block:
        SharedBlock.receive(connection)
    return result


def test_answers_one_job_after_another(connection):
    for what, error in [("raise", "ZeroDivisionError: by nothing"), ("refuse", "the table is empty")]:
        connection.send(job(what))
        result = connection.recv()
        assert isinstance(result, Result)
        assert (result.error, result.content) == (error, None)
    connection.send(job("double"))
    assert received(connection).content.texts["facts"]["name"] == "b"
    assert torch.get_num_threads() == 1


def test_block_that_it_does_not_have_is_an_error_not_an_end(connection):
    places, _ = place({"model": np.ones(3, np.float32)})
    connection.send(job("double", block="nowhere", places=places))
    assert "KeyError" in connection.recv().error
    connection.send(job("double"))
    assert received(connection).error == ""


def test_arrays_come_from_the_block_that_was_sent(connection):
    import os

    arrays = {"model": np.full(3, 2.0, np.float32)}
    places, size = place(arrays)
    block = SharedBlock.create(size)
    write(arrays, places, block)
    for number in range(3):
        if number == 0:
            connection.send("block")
            block.send(connection, os.getpid())
        connection.send(job("double", block=block.identity, places=places))
        result = connection.recv()
        if result.has_new_block:
            replies = SharedBlock.receive(connection)
        [answer] = result.content.arrays["arrays"]
        assert answer.view(replies).tolist() == [4.0, 4.0, 4.0]
