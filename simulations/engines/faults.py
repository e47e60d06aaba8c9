"""What goes wrong in a simulation, by schedule: a Flower mod around the hospital's app.

Delays follow a virtual clock that travels with the reply, never wall time, so that a faulty run gives the
same bits on any machine.
"""

import json
import os
import signal
from collections.abc import Callable

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable

from fedcad.shared.config.simulation import FaultConfig
from fedcad.shared.flower_records import answer_content, read_answer, read_plan
from fedcad.shared.messages import Update

_ERROR_CODE = 3
OUTLIVES = "outlives-faults"
"""Set in a node's configuration where its process must not be killed."""


def inject_faults(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let the fault that is scheduled for this site and round happen, if there is one.

    The schedule stands in the node's configuration as JSON under ``faults``.
    """
    schedule = json.loads(str(context.node_config.get("faults", "[]")))
    plan, _, _ = read_plan(message.content)
    for plain in schedule:
        fault = FaultConfig.model_validate(plain)
        if "train" in plan.work and plan.round in fault.rounds:
            kind = "lose" if fault.kind == "die" and context.node_config.get(OUTLIVES) else fault.kind
            return _FAULTS[kind](fault, message, lambda: call_next(message, context))
    return call_next(message, context)


Answer = Callable[[], Message]


def _drop(fault: FaultConfig, message: Message, answer: Answer) -> Message:
    """The site cannot be reached."""
    del fault, answer
    return Message(Error(_ERROR_CODE, "no connection (scheduled fault)"), reply_to=message)


def _delay(fault: FaultConfig, message: Message, answer: Answer) -> Message:
    """The site answers late."""
    del message
    reply = answer()
    if not reply.has_error():
        reply.content["clock"] = ConfigRecord({"delay_s": float(fault.delay_s or 0.0)})
    return reply


def _die(fault: FaultConfig, message: Message, answer: Answer) -> Message:
    """The site's process is killed after training, before its answer has left."""
    del fault, message
    reply = answer()
    os.kill(os.getpid(), signal.SIGKILL)
    return reply


def _lose(fault: FaultConfig, message: Message, answer: Answer) -> Message:
    """As :func:`_die`, for Flower's runtime: the answer is lost after training, the process stays.

    Why: flwr 1.41 puts a dead Ray actor back into its pool, where every later job on it fails too, whichever
    site it is for. The in-process engine replaces a killed process; both then give the same participation.
    """
    del fault
    reply = answer()
    if reply.has_error():
        return reply
    return Message(Error(_ERROR_CODE, "the site's process died (exit code -9)"), reply_to=message)


def _garbage(fault: FaultConfig, message: Message, answer: Answer) -> Message:
    """The site answers with numbers that cannot be used, or of another round."""
    reply = answer()
    update = None if reply.has_error() else read_answer(reply.content)
    if not isinstance(update, Update):
        return reply
    vectors = {name: np.array(vector) for name, vector in update.vectors.items()}
    header = update.header
    if fault.kind == "nan":
        for vector in vectors.values():
            vector[: len(vector) // 2 + 1] = np.nan
    elif fault.kind == "wrong-shape":
        vectors = {name: vector[:-1] for name, vector in vectors.items()}
    else:
        header = header.model_copy(update={"round": header.round - 1})
    return Message(answer_content(Update(header, vectors, update.statistics)), reply_to=message)


_FAULTS: dict[str, Callable[[FaultConfig, Message, Answer], Message]] = {
    "drop": _drop,
    "delay": _delay,
    "die": _die,
    "lose": _lose,
    "nan": _garbage,
    "wrong-shape": _garbage,
    "stale-round": _garbage,
}
