"""Frames between app and worker: round trips, and everything that is not one."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcad.client import worker_protocol
from fedcad.client.worker_protocol import (
    DTYPES,
    WorkerMessage,
    bind,
    check_peer,
    connect,
    frame,
    read_frame,
    receive_message,
    send_message,
)
from fedcad.shared.canonical import canonical_json
from fedcad.shared.errors import ProtocolError

NAMES = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


def source(content, most=7):
    """Return a fill that gives at most some bytes at once, as a socket may."""
    left = bytearray(content)

    def fill(buffer):
        count = min(len(buffer), most, len(left))
        buffer[:count] = left[:count]
        del left[:count]
        return count

    return fill


def bytes_of(message):
    return b"".join(frame(message))


def header(**changes):
    plain = {"version": 1, "kind": "train", "texts": {}, "records": ["vectors"], "arrays": []} | changes
    return canonical_json({name: value for name, value in plain.items() if value is not ...})


def framed(text, rest=b""):
    return b"FCW1" + struct.pack(">I", len(text)) + text + rest


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(NAMES, st.text(max_size=50), max_size=4),
    st.dictionaries(NAMES, st.dictionaries(NAMES, ARRAYS, max_size=3), max_size=3),
    st.integers(1, 50),
)
def test_what_arrives_is_what_was_sent(texts, arrays, most):
    message = WorkerMessage("train", texts, arrays)
    content = bytes_of(message)
    arrived = read_frame(source(content, most))
    assert (arrived.kind, arrived.texts) == ("train", texts)
    assert {record: set(named) for record, named in arrived.arrays.items()} == {
        record: set(named) for record, named in arrays.items()
    }
    for record, named in arrays.items():
        for name, sent in named.items():
            got = arrived.arrays[record][name]
            assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
            assert not got.flags.writeable
    assert bytes_of(arrived) == content


def test_frame_by_hand():
    message = WorkerMessage("answer", {"a": "b"}, {"r": {"n": np.array([1, -1], np.int64)}})
    text = b'{"arrays":[["r","n","int64",[2]]],"kind":"answer","records":["r"],"texts":{"a":"b"},"version":1}'
    values = b"\1" + b"\0" * 7 + b"\xff" * 8
    assert bytes_of(message) == b"FCW1" + bytes([0, 0, 0, len(text)]) + text + values


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_cut_anywhere_is_a_broken_connection_and_never_a_message(data):
    content = bytes_of(WorkerMessage("train", {"plan": "{}"}, {"vectors": {"model": np.ones(9, np.float32)}}))
    cut = data.draw(st.integers(1, len(content) - 1))
    with pytest.raises(ConnectionError):
        read_frame(source(content[:cut]))


def test_nothing_is_no_message():
    assert read_frame(source(b"")) is None


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_changed_bytes_never_do_anything_but_a_message_or_a_typed_error(data):
    content = bytearray(bytes_of(WorkerMessage("train", {"p": "{}"}, {"v": {"m": np.ones(3, np.float16)}})))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError, ConnectionError):
        read_frame(source(content), largest_bytes=1000)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a":NaN}',
        b"[" * 100_000,
        b"\xff\xfe",
        header() + b" ",
        header().replace(b'"kind"', b'"kind":"x","kind"'),
        header(version=2),
        header(version=True),
        header(version=...),
        header(more=1),
        header(kind=""),
        header(kind=7),
        header(kind="k" * 101),
        header(texts=[]),
        header(texts={"a": 1}),
        header(texts={str(i): "" for i in range(65)}),
        header(records="vectors"),
        header(records=["a", "a"]),
        header(records=[1]),
        header(arrays=...),
        header(arrays=[["vectors", "m", "float32"]]),
        header(arrays=[["other", "m", "float32", [1]]]),
        header(arrays=[[["vectors"], "m", "float32", [1]]]),
        header(arrays=[["vectors", "m", "float64", [1]]]),
        header(arrays=[["vectors", "m", "object", [1]]]),
        header(arrays=[["vectors", "m", ["float32"], [1]]]),
        header(arrays=[["vectors", "m", ">f4", [1]]]),
        header(arrays=[["vectors", "m", "float32", [-1]]]),
        header(arrays=[["vectors", "m", "float32", [-1, -1]]]),
        header(arrays=[["vectors", "m", "float32", [1.0]]]),
        header(arrays=[["vectors", "m", "float32", [True]]]),
        header(arrays=[["vectors", "m", "float32", 1]]),
        header(arrays=[["vectors", "m", "float32", [1] * 9]]),
        header(arrays=[["vectors", "m", "float32", [2**35] * 8]]),
        header(arrays=[["vectors", "m", "float32", [0, 2**35, 2**35]]]),
        header(arrays=[["vectors", "m", "float32", [2**62]]]),
        header(arrays=[["vectors", "m", "float32", [1]], ["vectors", "m", "int64", [1]]]),
        header(arrays=[["vectors", str(i), "float32", []] for i in range(4097)]),
    ],
)
def test_wrong_headers_are_protocol_errors(text):
    with pytest.raises(ProtocolError):
        read_frame(source(framed(text, b"\0" * 64), 10**6))


@pytest.mark.parametrize("prefix", [b"GET / HT", b"FCW2\0\0\0\2", b"FCW1\xff\xff\xff\xff"])
def test_wrong_beginnings_are_protocol_errors(prefix):
    with pytest.raises(ProtocolError):
        read_frame(source(prefix + b"{}"))


def test_sizes_are_checked_before_anything_is_allocated(monkeypatch):
    text = header(arrays=[["vectors", "a", "float32", [200]], ["vectors", "b", "int64", [26]]])
    monkeypatch.setattr(worker_protocol.np, "empty", lambda *_: pytest.fail("allocated"))
    with pytest.raises(ProtocolError, match="1008 bytes"):
        read_frame(source(framed(text)), largest_bytes=1007)


@pytest.mark.parametrize(
    "message",
    [
        WorkerMessage("train", {}, {"v": {"m": np.ones(2)}}),
        WorkerMessage("train", {}, {"v": {"m": np.ones(2, ">f4")}}),
        WorkerMessage("train", {}, {"v": {"m": np.array([object()])}}),
        WorkerMessage("", {}, {}),
        WorkerMessage("train", {"long": "x" * worker_protocol.LARGEST_HEADER_BYTES}, {}),
    ],
)
def test_what_would_not_be_read_is_not_sent(message):
    with pytest.raises(ProtocolError):
        list(frame(message))


def test_large_arrays_are_sent_from_their_own_memory():
    values = np.arange(1000, dtype=np.float32)
    part = list(frame(WorkerMessage("train", {}, {"v": {"m": values}})))[2]
    assert np.shares_memory(np.frombuffer(part, np.float32), values)


def test_strided_arrays_arrive_in_c_order():
    values = np.arange(12, dtype=np.int64).reshape(3, 4).T
    arrived = read_frame(source(bytes_of(WorkerMessage("train", {}, {"v": {"m": values}}))))
    assert np.array_equal(arrived.arrays["v"]["m"], values)


@pytest.fixture
def listener(tmp_path):
    folder = tmp_path / ("a long folder name of a hospital's share " * 4) / "run"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        bind(listener, folder / "worker.sock")
        listener.listen()
        yield listener, folder / "worker.sock"


def test_paths_longer_than_a_unix_address_can_be(listener):
    assert len(str(listener[1])) > 108
    with connect(listener[1]) as client:
        server, _ = listener[0].accept()
        with server:
            check_peer(server)
            send_message(client, WorkerMessage("ready"))
            assert receive_message(server) == WorkerMessage("ready")
            client.close()
            assert receive_message(server) is None


def test_another_user_is_turned_away(listener, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(ProtocolError, match="belongs to user"):
        connect(listener[1])


def test_nobody_listens(tmp_path):
    with pytest.raises(OSError):
        connect(tmp_path / "none.sock")


ECHO = """
import numpy, socket
from pathlib import Path
from fedcad.client.worker_protocol import receive_message, send_message, WorkerMessage

def peak_kb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

connection, before = socket.socket(fileno=0), peak_kb()
message = receive_message(connection)
send_message(connection, WorkerMessage("answer", {}, message.arrays))
print(peak_kb() - before)
"""


def test_100_mb_go_through_in_the_memory_of_one_copy():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-c", ECHO], stdin=theirs, stdout=subprocess.PIPE)
        theirs.close()
        sent = np.arange(25_000_000, dtype=np.float32)
        send_message(ours, WorkerMessage("train", {}, {"v": {"m": sent}}))
        answer = receive_message(ours)
        grown_kb = int(child.communicate()[0])
    assert np.array_equal(answer.arrays["v"]["m"], sent)
    assert 90_000 < grown_kb < 105_000


def test_header_is_json_that_anyone_can_read():
    content = bytes_of(WorkerMessage("ready", {"contract": "{}"}, {}))
    assert json.loads(content[8:])["texts"] == {"contract": "{}"}
