"""Each scheduled fault around a real node, without processes."""

import json

import numpy as np
import pytest
import tiny_study
from flwr.app import Context, Message, RecordDict
from toy_algorithms import plan_for

from fedcad.client.node import Node
from fedcad.client.node_app import make_client_app
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.config.simulation import FaultConfig
from fedcad.shared.flower_internals.messages import enter_task, name_message
from fedcad.shared.flower_records import array_record, plan_content, read_answer
from fedcad.shared.messages import Update
from fedcad.simulations.engines.faults import OUTLIVES, inject_faults

BENCH = Workbench(freeze(tiny_study.make_study()))


@pytest.fixture
def trained(tmp_path):
    return []


@pytest.fixture
def send(tmp_path, trained):
    node = Node("a", tiny_study.spread_cases(), BENCH, state=tmp_path)

    def open_node(context):
        trained.append(True)
        return node

    app = make_client_app(open_node, mods=[inject_faults])

    def send(*faults, round_number=2, work=("validate", "train"), outlives=False):
        enter_task()
        plan, vectors, _ = plan_for(
            BENCH, {"model": BENCH.contract.initial}, work=work, round_number=round_number
        )
        message = Message(plan_content(plan, array_record(vectors)), 1, "train")
        name_message(message, "m1")
        config = {"faults": json.dumps([FaultConfig(**fault).model_dump(mode="json") for fault in faults])}
        if outlives:
            config[OUTLIVES] = True
        return app(message, Context(1, 1, config, RecordDict(), {}))

    return send


def fault(kind, *rounds, **more):
    return {"kind": kind, "site": "a", "rounds": rounds or (2,), **more}


def usual(send):
    return read_answer(send().content)


def test_without_a_schedule_nothing_happens(send):
    assert isinstance(usual(send), Update)


@pytest.mark.parametrize("kind", ["drop", "nan", "wrong-shape", "stale-round"])
def test_other_rounds_and_other_work_are_left_alone(send, kind):
    healthy = usual(send)
    again = read_answer(send(fault(kind, 1, 3)).content)
    assert np.array_equal(again.vectors["model"], healthy.vectors["model"])
    assert not send(fault(kind, 2), work=("validate",)).has_error()
    assert again.header == healthy.header


def test_drop_answers_nothing_and_trains_nothing(send, trained):
    reply = send(fault("drop"))
    assert reply.error.reason == "no connection (scheduled fault)"
    assert trained == []


def test_delay_travels_with_an_unchanged_answer(send):
    reply = send(fault("delay", delay_s=12.5))
    assert reply.content.config_records["clock"]["delay_s"] == 12.5
    assert np.array_equal(read_answer(reply.content).vectors["model"], usual(send).vectors["model"])


def test_garbage(send):
    healthy = usual(send).vectors["model"]
    nan = read_answer(send(fault("nan")).content)
    assert np.isnan(nan.vectors["model"]).any()
    short = read_answer(send(fault("wrong-shape")).content)
    assert short.vectors["model"].shape == (healthy.size - 1,)
    stale = read_answer(send(fault("stale-round")).content)
    assert stale.header.round == 1
    assert np.array_equal(stale.vectors["model"], healthy)
    assert set(stale.statistics) == {"validation"}


def test_stale_round_of_the_first_round_is_round_zero(send):
    assert read_answer(send(fault("stale-round", 1), round_number=1).content).header.round == 0


def test_die_where_the_process_must_stay_loses_the_answer_after_training(send, trained):
    reply = send(fault("die"), outlives=True)
    assert reply.error.reason == "the site's process died (exit code -9)"
    assert trained == [True]


def test_first_matching_fault_happens(send):
    assert send(fault("nan", 1), fault("drop", 2), fault("nan", 2)).has_error()
