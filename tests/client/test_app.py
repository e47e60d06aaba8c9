"""The thin app: what comes through it unchanged, what it never imports, what it does when the worker dies."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedcad.client.app import SOCKET_KEY, make_client_app, to_worker
from fedcad.client.worker_keeper import WorkerKeeper
from fedcad.client.worker_protocol import WorkerMessage, receive_message, send_message
from fedcad.shared.errors import ProtocolError
from fedcad.shared.flower_internals.messages import enter_task, name_message
from fedcad.shared.flower_records import put_texts

READY = "query.ready"
MANY = ("torch", "monai", "pydicom", "opacus", "ray", "pandas", "safetensors")


def send(app, content, kind, config):
    enter_task()
    message = Message(content, 1, kind)
    name_message(message, "m1")
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    return app(message, context)


@contextmanager
def worker(path, answers):
    """Answer one connection after another, each as a function of its message says; None closes it."""
    import socket

    from fedcad.client.worker_protocol import bind

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        bind(listener, path)
        listener.listen()

        def serve():
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    said = answer(receive_message(connection))
                    if said is not None:
                        send_message(connection, said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield {SOCKET_KEY: str(path)}
        thread.join(10)
        assert not thread.is_alive()


def echo(message):
    return WorkerMessage("answer", {"kind": message.kind, **message.texts}, message.arrays)


def content_of(values):
    content = put_texts({"plan": '{"round":1}', "signature": "ab"})
    content["vectors"] = ArrayRecord({name: Array(each) for name, each in values.items()})
    return content


VALUES = {
    "model": np.arange(5, dtype=np.float32),
    "half": np.ones((2, 3), np.float16),
    "counts": np.array([[2**40]], np.int64),
    "none": np.zeros((0, 4), np.float32),
}


def test_never_imports_what_trains_or_reads_images():
    code = (
        "import sys\n"
        "import fedcad.client.app as app\n"
        "from flwr.clientapp import ClientApp\n"
        "assert isinstance(app.app, ClientApp)\n"
        f"print(sorted(set({MANY!r}) & set(sys.modules)))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('fedcad.client.')))\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    none, ours = printed.splitlines()
    assert none == "[]"
    assert ours.split() == ["fedcad.client.app", "fedcad.client.withheld", "fedcad.client.worker_protocol"]


@pytest.mark.parametrize("kind", ["train", READY])
def test_message_and_answer_pass_unchanged(kind, tmp_path):
    with worker(tmp_path / "w.sock", [echo]) as config:
        reply = send(make_client_app(), content_of(VALUES), kind, config)
    texts = {name: record["json"] for name, record in reply.content.config_records.items()}
    assert texts == {"kind": kind.removeprefix("query."), "plan": '{"round":1}', "signature": "ab"}
    arrays = reply.content.array_records["vectors"]
    for name, values in VALUES.items():
        assert (arrays[name].dtype, tuple(arrays[name].shape)) == (values.dtype.name, values.shape)
        assert np.array_equal(Array(arrays[name].numpy()).numpy(), values)


def test_arrays_are_views_of_the_bytes_that_arrived():
    content = content_of(VALUES)
    read = to_worker("train", content).arrays["vectors"]["model"]
    data = content.array_records["vectors"]["model"].data
    assert np.shares_memory(read, np.frombuffer(data, np.uint8))


def array(**changes):
    made = Array(np.ones(3, np.float32))
    fields = {"dtype": made.dtype, "shape": made.shape, "stype": made.stype, "data": made.data} | changes
    return ArrayRecord({"model": Array(**fields)})


@pytest.mark.parametrize(
    "record",
    [
        array(stype="pickle"),
        array(dtype="object"),
        array(dtype="float64"),
        array(dtype="int64"),
        array(shape=(4,)),
        array(shape=(2**40,)),
        array(data=b""),
        array(data=b"PK\3\4 an archive"),
        array(data=Array(np.ones(3, np.float32)).data + b"\0"),
        array(data=Array(np.ones(3, np.float32)).data[:-1]),
        MetricRecord({"m": 1.0}),
        ConfigRecord({"json": 1}),
        ConfigRecord({"json": "{}", "more": "x"}),
        ConfigRecord({}),
    ],
)
def test_hostile_records_are_refused(record, tmp_path):
    with pytest.raises(ProtocolError):
        to_worker("train", RecordDict({"vectors": record}))
    reply = send(
        make_client_app([]), RecordDict({"vectors": record}), "train", {SOCKET_KEY: str(tmp_path / "w")}
    )
    assert reply.has_error()
    assert reply.error.reason == "the site failed (ProtocolError); the site's own log says why"


def test_error_of_the_worker_is_an_error_reply(tmp_path):
    said = WorkerMessage("error", {"reason": "the site failed (ArchiveError)"})
    with worker(tmp_path / "w.sock", [lambda _: said]) as config:
        reply = send(make_client_app(), content_of(VALUES), "train", config)
    assert (reply.error.code, reply.error.reason) == (2, "the site failed (ArchiveError)")


def test_worker_that_ends_is_asked_again_and_the_message_is_whole(tmp_path):
    with worker(tmp_path / "w.sock", [lambda _: None, lambda _: None, echo]) as config:
        reply = send(make_client_app([0, 0, 0]), content_of(VALUES), "train", config)
    assert np.array_equal(reply.content.array_records["vectors"]["model"].numpy(), VALUES["model"])


def test_tries_are_bounded_and_only_the_kind_is_told(tmp_path):
    with worker(tmp_path / "w.sock", [lambda _: None] * 3) as config:
        reply = send(make_client_app([0, 0]), content_of(VALUES), "train", config)
    assert reply.error.code == 5
    assert str(tmp_path) not in reply.error.reason
    absent = send(make_client_app([0]), content_of(VALUES), "train", {SOCKET_KEY: str(tmp_path / "none")})
    assert absent.error.code == 5
    assert str(tmp_path) not in absent.error.reason
    assert "KeyError" in send(make_client_app([0]), content_of(VALUES), "train", {}).error.reason


def test_real_worker_processes_that_die_each_time_until_one_answers(tmp_path):
    """Each worker takes the whole message; the first two are gone before they answer."""
    code = (
        "import os, signal, socket, sys\n"
        "from pathlib import Path\n"
        "from fedcad.client.worker_protocol import *\n"
        "connection, _ = socket.socket(fileno=3).accept()\n"
        "message, marks = receive_message(connection), Path(sys.argv[1])\n"
        "marks.write_text((marks.read_text() if marks.exists() else '') + '.')\n"
        "if marks.read_text() != '...': os.kill(os.getpid(), signal.SIGKILL)\n"
        "send_message(connection, WorkerMessage('answer', {'header': 'h'}, message.arrays))\n"
    )
    now, ends = [0.0], threading.Event()
    command = [sys.executable, "-c", code, str(tmp_path / "marks")]
    path = tmp_path / "run" / "worker.sock"
    with WorkerKeeper(path, command=command, log=tmp_path / "log", clock=lambda: now[0]) as keeper:

        def mind():
            while not ends.is_set():
                keeper.poll(0.02)
                now[0] += 100

        minder = threading.Thread(target=mind)
        minder.start()
        reply = send(make_client_app([0.01, 0.01]), content_of(VALUES), "train", {SOCKET_KEY: str(path)})
        ends.set()
        minder.join()
    assert not reply.has_error()
    assert (tmp_path / "marks").read_text() == "..."


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from fedcad.client.app import _forward, from_worker, to_worker
from flwr.app import Array, ArrayRecord, RecordDict

def peak_kb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

content = RecordDict({"vectors": ArrayRecord({"model": Array(np.ones(25_000_000, np.float32))})})
Path("/proc/self/clear_refs").write_text("5")
before = peak_kb()
answer = from_worker(_forward(Path(sys.argv[1]), to_worker("train", content), ()))
assert len(answer.array_records["vectors"]["model"].data) == 100_000_128
print(peak_kb() - before)
assert answer.array_records["vectors"]["model"].numpy()[-1] == 1
"""


def test_100_mb_forth_and_back_cost_the_app_the_answer_alone(tmp_path):
    with worker(tmp_path / "w.sock", [echo]):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "w.sock")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 90_000 < int(printed) < 105_000


def test_answer_is_what_flower_itself_would_have_serialised(tmp_path):
    """Flower's own class, since the other side knows no other, and the bytes of ``np.save``."""
    with worker(tmp_path / "w.sock", [echo]) as config:
        reply = send(make_client_app(), content_of(VALUES), "train", config)
    for name, values in VALUES.items():
        array = reply.content.array_records["vectors"][name]
        assert type(array) is Array
        assert array.data == Array(values).data
