"""Client apps for the tests of the engines; importable, since worker processes make them anew."""

import gc
import os
import signal
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcad.shared.errors import DataError
from fedcad.shared.flower_records import array_record


def make_echo_app() -> ClientApp:
    """Return an app that does what the message's record ``do`` says."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        do = message.content.config_records["do"]
        return _DO[str(do["what"])](message, context)

    return app


def make_killed_app() -> ClientApp:
    """Return an app whose process is killed when it is asked whether it is ready."""
    app = ClientApp()

    @app.query("ready")
    def ready(message: Message, context: Context) -> Message:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("the process is gone")

    return app


def make_broken_app() -> ClientApp:
    """Fail in the worker, before any message."""
    raise RuntimeError("no app today")


def _reply(message: Message, arrays, **facts) -> Message:
    content = {"facts": ConfigRecord(facts)} | (
        {"arrays": array_record(arrays)} if arrays is not None else {}
    )
    return Message(RecordDict(content), reply_to=message)


def _arrays(message: Message):
    records = list(message.content.array_records.values())
    return {name: array.numpy() for name, array in records[0].items()} if records else {}


def _double(message: Message, context: Context) -> Message:
    arrays = _arrays(message)
    is_read_only = all(not array.flags.writeable for array in arrays.values())
    doubled = {name: np.asarray(array * 2) for name, array in arrays.items()}
    node = str(context.node_config.get("name", ""))
    return _reply(message, doubled, pid=os.getpid(), is_read_only=is_read_only, name=node)


def _scribble(message: Message, context: Context) -> Message:
    """Try to change what other sites will read."""
    errors = 0
    for array in _arrays(message).values():
        for attempt in (_write, _unlock):
            try:
                attempt(array)
            except ValueError:
                errors += 1
    return _reply(message, _arrays(message), errors=errors)


def _write(array) -> None:
    array[...] = 99


def _unlock(array) -> None:
    array.flags.writeable = True
    array[...] = 99


def _die(message: Message, context: Context) -> Message:
    os.kill(os.getpid(), signal.SIGKILL)
    return message


def _raise(message: Message, context: Context) -> Message:
    raise ZeroDivisionError("by nothing")


def _refuse(message: Message, context: Context) -> Message:
    raise DataError("the table is empty")


def _error(message: Message, context: Context) -> Message:
    return Message(Error(7, "as asked"), reply_to=message)


def _sleep(message: Message, context: Context) -> Message:
    time.sleep(float(str(message.content.config_records["do"]["seconds"])))
    return _reply(message, None, pid=os.getpid())


def _sleep_then_double(message: Message, context: Context) -> Message:
    time.sleep(float(str(message.content.config_records["do"]["seconds"])))
    return _double(message, context)


def _descriptors(message: Message, context: Context) -> Message:
    gc.collect()
    return _reply(message, None, count=len(list(Path("/proc/self/fd").iterdir())))


_DO = {
    "double": _double,
    "scribble": _scribble,
    "die": _die,
    "raise": _raise,
    "refuse": _refuse,
    "error": _error,
    "sleep": _sleep,
    "sleep-then-double": _sleep_then_double,
    "descriptors": _descriptors,
}
