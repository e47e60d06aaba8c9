"""The real server app over a Flower grid in memory, with real client apps and with hostile nodes.

Messages are turned into bytes and back, so that the coordinator sees bytes and never our objects.
"""

import itertools
import json
import pickle  # noqa: TID251 - what an attacker sends
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp import Grid
from study_factory import DirectChannel, LogisticSite, make_contract, make_run, make_sites

import fedcad.server.app as coordinator
from fedcad.server.app import GridChannel, make_server_app
from fedcad.server.channel import Lost
from fedcad.server.outcome import model_hash, read_outcome
from fedcad.server.settings import RunSettings
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.flower_internals.messages import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)
from fedcad.shared.flower_records import answer_content, array_record, plan_content, read_plan
from fedcad.shared.messages import RoundPlan, SiteInfo, Update

Spoil = Callable[[Message, Message], Message | None]
"""Takes a plan's message and the honest reply; None is silence."""


def over_the_wire(content: RecordDict) -> RecordDict:
    """Return a content of bytes only; arrays by hand: Flower's JSON allows shapes that protobuf does not."""
    plain = RecordDict(dict(content.config_records))
    arrived = recorddict_from_proto(recorddict_to_proto(plain))
    for name, record in content.array_records.items():
        arrived[name] = ArrayRecord(
            {key: Array(each.dtype, each.shape, each.stype, bytes(each.data)) for key, each in record.items()}
        )
    return arrived


def make_client(site: LogisticSite) -> ClientApp:
    app = ClientApp()

    @app.query("ready")
    def ready(message: Message, context: Context) -> Message:
        return Message(answer_content(site.info()), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        plan, vectors, broadcast_hash = read_plan(message.content)
        assert broadcast_hash == plan.broadcast_hash
        return Message(answer_content(site.answer(plan, vectors)), reply_to=message)

    return app


class MemoryGrid(Grid):
    """Answers every message at once; keeps what it was asked."""

    def __init__(self, nodes: Mapping[int, LogisticSite], spoil: Mapping[int, Spoil] | None = None) -> None:
        enter_task()
        self.apps = {node: make_client(site) for node, site in nodes.items()}
        self.spoil = dict(spoil or {})
        self.spoil_ready: dict[int, Spoil] = {}
        self.order: list[tuple[str, int]] = []
        self.unsent: set[int] = set()
        self.twice = False
        self.forged: dict[int, int] = {}
        self.stale: list[Message] = []
        self._finished: list[Message] = []
        self._numbers = itertools.count()

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        if node in self.unsent and kind == "train":
            return None  # type: ignore[return-value] # what Flower returns for a message it could not push
        identity = f"m{next(self._numbers)}"
        name_message(message, identity)
        self.order.append((kind, node))
        metadata = metadata_of(message)
        arrived = make_message(metadata, over_the_wire(message.content))
        context = Context(1, node, {}, RecordDict(), {})
        reply: Message | None = self.apps[node](arrived, context)
        spoil = (self.spoil if kind == "train" else self.spoil_ready).get(node)
        if spoil is not None and reply is not None:
            reply = spoil(arrived, reply)
        if reply is not None:
            body = reply.error if reply.has_error() else over_the_wire(reply.content)
            told = reply_metadata(metadata, time.time())
            told["src_node_id"] = self.forged.get(node, node) if kind == "train" else node
            self._finished.append(make_message(told, body))
        return identity

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        found = [m for m in self._finished if m.metadata.reply_to_message_id in wanted]
        self._finished = [m for m in self._finished if m.metadata.reply_to_message_id not in wanted]
        stale, self.stale = self.stale, []
        return [*stale, *found, *(found if self.twice else ())]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        raise NotImplementedError


def prepare(folder: Path, contract: Contract, *, sites: str = "abc", virtual_clock: bool = True) -> None:
    contract.save(folder / "contract")
    RunSettings(contract="contract", sites=tuple(sites), virtual_clock=virtual_clock).save(folder)


def run_app(folder: Path, grid: Grid) -> dict[str, Any]:
    context = Context(1, 1, {}, RecordDict(), {"run-directory": str(folder)})
    make_server_app()(grid, context)
    outcome = read_outcome(folder)
    assert outcome is not None
    return outcome


def participation(folder: Path, number: int) -> dict[str, tuple[str, str]]:
    for line in (folder / "rounds.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in ("round", "stopped") and event["round"] == number:
            return {part["site"]: (part["status"], part["reason"]) for part in event["participation"]}
    raise AssertionError(f"no round {number}")


def numbered(sites: list[LogisticSite]) -> dict[int, LogisticSite]:
    return dict(enumerate(sites, start=11))


@pytest.fixture
def contract() -> Contract:
    return make_contract(rounds=2)


def in_round(number: int, spoil: Spoil) -> Spoil:
    def only(asked: Message, reply: Message) -> Message | None:
        return spoil(asked, reply) if read_plan(asked.content)[0].round == number else reply

    return only


def test_a_study_over_flower_gives_the_same_model_as_over_a_direct_channel(
    tmp_path: Path, contract: Contract
) -> None:
    prepare(tmp_path, contract)
    grid = MemoryGrid(numbered(make_sites(contract)))
    outcome = run_app(tmp_path, grid)
    direct = make_run(tmp_path / "direct", contract, DirectChannel(make_sites(contract))).run()
    assert outcome["status"] == "completed"
    assert outcome["model_sha256"] == model_hash(direct.selection.model)
    assert outcome["last_sha256"] == model_hash(direct.state["model"])
    # The largest site first: 8, 6, then 4 training cases.
    assert [node for kind, node in grid.order if kind == "train"][:3] == [13, 12, 11]


def test_a_finished_folder_asks_nobody(tmp_path: Path, contract: Contract) -> None:
    prepare(tmp_path, contract)
    first = run_app(tmp_path, MemoryGrid(numbered(make_sites(contract))))
    grid = MemoryGrid(numbered(make_sites(contract)))
    assert run_app(tmp_path, grid) == first
    assert grid.order == []


def test_a_missed_quorum_is_an_outcome_with_a_reason(tmp_path: Path) -> None:
    contract = make_contract(participation={"quorum": 3})
    prepare(tmp_path, contract)
    wrong = {12: in_round(2, lambda asked, reply: Message(Error(7, "disk full"), reply_to=asked))}
    outcome = run_app(tmp_path, MemoryGrid(numbered(make_sites(contract)), wrong))
    assert outcome["status"] == "stopped"
    assert "round 2 had 2 usable updates; the quorum is 3" in outcome["reason"]
    assert "b lost (disk full)" in outcome["reason"]
    assert outcome["rounds_closed"] == 1
    healed = run_app(tmp_path, MemoryGrid(numbered(make_sites(contract))))
    assert healed["status"] == "completed"


# Hostile replies.


def npy(values: Any, **options: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def zipped() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.npy", npy(np.zeros(8, dtype=np.float32)))
    return stream.getvalue()


GOOD = np.zeros(8, dtype=np.float32)
HUGE_HEADER = npy(GOOD).replace(b"(8,), }" + b" " * 12, b"(9999999999999,), }")
"""An npy header that says 40 TB, of the right length."""


def with_array(data: bytes, *, dtype: str = "float32", shape: tuple[int, ...] = (8,)) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Message:
        reply.content["vectors"] = ArrayRecord(
            {"model": Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)}
        )
        return reply

    return spoil


def without(name: str) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Message:
        content = RecordDict({key: value for key, value in reply.content.items() if key != name})
        return Message(content, reply_to=asked)

    return spoil


def with_record(name: str, record: Any) -> Spoil:
    def spoil(asked: Message, reply: Message) -> Message:
        content = RecordDict({key: value for key, value in reply.content.items() if key != name})
        content[name] = record
        return Message(content, reply_to=asked)

    return spoil


def text(value: Any) -> ConfigRecord:
    return ConfigRecord({"json": value})


def other_stype(asked: Message, reply: Message) -> Message:
    record = ArrayRecord({"model": Array(dtype="float32", shape=(8,), stype="pickle", data=npy(GOOD))})
    return with_record("vectors", record)(asked, reply)


def many_arrays(asked: Message, reply: Message) -> Message:
    record = ArrayRecord({f"{number}": Array(np.zeros(1, dtype=np.float32)) for number in range(1025)})
    return with_record("vectors", record)(asked, reply)


def long_name(asked: Message, reply: Message) -> Message:
    return with_record("vectors", ArrayRecord({"m" * 10_000: Array(GOOD)}))(asked, reply)


class Unpickled:
    """Would be made by a careless reader."""

    made = 0

    def __reduce__(self) -> Any:
        return (_made, ())


def _made() -> int:
    Unpickled.made += 1
    return 0


HOSTILE: dict[str, tuple[str, str, Spoil]] = {
    "error": ("lost", "disk full", lambda asked, reply: Message(Error(7, "disk full"), reply_to=asked)),
    "long error": ("lost", "xxx", lambda asked, reply: Message(Error(7, "x" * 100_000), reply_to=asked)),
    "empty": ("rejected", "no record 'header'", lambda asked, reply: Message(RecordDict(), reply_to=asked)),
    "no header": ("rejected", "no record 'header'", without("header")),
    "no vectors": ("rejected", "no record 'vectors'", without("vectors")),
    "no statistics": ("rejected", "no record 'statistics'", without("statistics")),
    "header is arrays": ("rejected", "no record 'header'", with_record("header", ArrayRecord())),
    "vectors are text": ("rejected", "no record 'vectors'", with_record("vectors", text("{}"))),
    "header of 2 MB": ("rejected", "at most 1000000", with_record("header", text("[" * 2_000_000))),
    "deep header": ("rejected", "not valid", with_record("header", text("[" * 900_000))),
    "header is a number": ("rejected", "JSON text", with_record("header", text(3))),
    "header is bytes": ("rejected", "JSON text", with_record("header", text(b"{}"))),
    "header without text": ("rejected", "JSON text", with_record("header", ConfigRecord({"other": "{}"}))),
    "header is a list": ("rejected", "not valid", with_record("header", text("[]"))),
    "unknown key": (
        "rejected",
        "not valid",
        with_record("header", text(json.dumps({"k" * 500_000: 1}))),
    ),
    "huge number": (
        "rejected",
        "not valid",
        with_record("header", text('{"round":' + "9" * 5000 + "}")),
    ),
    "refusal of a strange kind": (
        "rejected",
        "not valid",
        with_record("refusal", text('{"plan":"x","site":"b","code":"mine"}')),
    ),
    "refusal is arrays": ("rejected", "no record 'refusal'", with_record("refusal", ArrayRecord())),
    "wrong dtype": ("rejected", "expected float32", with_array(npy(np.zeros(8)), dtype="float64")),
    "dtype lies": ("rejected", "not what its description", with_array(npy(np.zeros(8)))),
    "shape lies": ("rejected", "not what its description", with_array(npy(GOOD[:7]))),
    "negative shape": ("rejected", "got", with_array(npy(GOOD), shape=(-8,))),
    "two negatives": ("rejected", "expected float32", with_array(npy(GOOD), shape=(-2, -4))),
    "huge shape": ("rejected", "at most", with_array(npy(GOOD), shape=(2**40,))),
    "huge product": ("rejected", "at most", with_array(npy(GOOD), shape=(2**31, 2**31, 2**31))),
    "allowed shape, few bytes": ("rejected", "not what", with_array(npy(GOOD), shape=(2**31 - 1,))),
    "huge shape in the bytes": ("rejected", "not what", with_array(HUGE_HEADER)),
    "no shape": ("rejected", "not what", with_array(npy(GOOD), shape=())),
    "zero times huge": ("rejected", "not", with_array(npy(GOOD), shape=(0, 2**62))),
    "many axes": ("rejected", "expected float32", with_array(npy(GOOD), shape=(1,) * 99 + (8,))),
    "cut off": ("rejected", "too few", with_array(npy(GOOD)[:-4])),
    "cut inside a value": ("rejected", "too few", with_array(npy(GOOD)[:-3])),
    "too long": ("rejected", "too few, too many", with_array(npy(GOOD) + b"\0" * 4)),
    "no bytes": ("rejected", "not what", with_array(b"")),
    "noise": ("rejected", "not what", with_array(b"\x93NUMPY" + bytes(range(256)))),
    "text": ("rejected", "not what", with_array(b"import os; os.system('true')")),
    "zip archive": ("rejected", "not what", with_array(zipped())),
    "pickle": ("rejected", "not what", with_array(pickle.dumps(Unpickled()))),
    "pickled objects in npy": (
        "rejected",
        "not what",
        with_array(npy(np.array([Unpickled()], dtype=object), allow_pickle=True), shape=(1,)),
    ),
    "declared objects": (
        "rejected",
        "expected float32",
        with_array(npy(np.array([Unpickled()], dtype=object), allow_pickle=True), dtype="object"),
    ),
    "other serialisation": ("rejected", "expected float32", other_stype),
    "big-endian": ("rejected", "not what", with_array(npy(GOOD.astype(">f4")))),
    "too many arrays": ("rejected", "more than 1024", many_arrays),
    "long name": ("rejected", "names that are not ASCII", long_name),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_are_named_and_the_round_goes_on(tmp_path: Path, kind: str) -> None:
    status, reason, spoil = HOSTILE[kind]
    contract = make_contract(rounds=1)
    prepare(tmp_path, contract)
    outcome = run_app(tmp_path, MemoryGrid(numbered(make_sites(contract)), {12: in_round(1, spoil)}))
    assert outcome["status"] == "completed"
    found = participation(tmp_path, 1)
    assert found["a"][0] == found["c"][0] == "counted"
    assert found["b"][0] == status
    assert re.search(reason, found["b"][1])
    assert len(found["b"][1]) < 600
    assert Unpickled.made == 0


def test_the_hostile_header_is_one_that_numpy_would_believe() -> None:
    assert npy(GOOD) != HUGE_HEADER
    with pytest.raises((MemoryError, ValueError)):
        np.load(BytesIO(HUGE_HEADER))


def test_hostile_statistics_bytes(tmp_path: Path) -> None:
    contract = make_contract(rounds=1)
    prepare(tmp_path, contract)

    def spoil(asked: Message, reply: Message) -> Message:
        huge = Array(dtype="int64", shape=(1, 2**27), stype="numpy.ndarray", data=b"")
        return with_record("statistics", ArrayRecord({"validation": huge}))(asked, reply)

    run_app(tmp_path, MemoryGrid(numbered(make_sites(contract)), {12: in_round(1, spoil)}))
    assert participation(tmp_path, 1)["b"][0] == "rejected"


# Who is there.


def test_two_nodes_of_one_name_are_both_left_out(tmp_path: Path, contract: Contract) -> None:
    prepare(tmp_path, contract)
    sites = make_sites(contract)
    grid = MemoryGrid({11: sites[0], 12: sites[1], 13: sites[2], 14: sites[1], 15: sites[1]})
    assert run_app(tmp_path, grid)["status"] == "completed"
    assert participation(tmp_path, 1)["b"] == (
        "lost",
        "not ready: two nodes claim this name; revoke one of them",
    )
    assert {node for kind, node in grid.order if kind == "train"} == {11, 13}


def test_a_site_that_is_not_enrolled_gets_no_plan(tmp_path: Path, contract: Contract) -> None:
    prepare(tmp_path, contract, sites="ab")
    grid = MemoryGrid(numbered(make_sites(contract, "a", "b", "stranger")))
    run_app(tmp_path, grid)
    assert {node for kind, node in grid.order if kind == "train"} == {11, 12}
    assert set(participation(tmp_path, 1)) == {"a", "b"}


NOT_READY: dict[str, tuple[str, Spoil]] = {
    "error": ("archive", lambda asked, reply: Message(Error(7, "archive is empty"), reply_to=asked)),
    "nothing": ("no record 'siteinfo'", lambda asked, reply: Message(RecordDict(), reply_to=asked)),
    "no counts": (
        "not valid",
        with_record("siteinfo", text('{"site":"b","study_hash":"' + "0" * 64 + '","cases":{},"summary":""}')),
    ),
    "absurd counts": (
        "not valid",
        with_record(
            "siteinfo",
            text(
                json.dumps(
                    {
                        "site": "b",
                        "study_hash": "0" * 64,
                        "cases": {"train": 2**31, "validation": 0, "test": 0},
                        "summary": "",
                    }
                )
            ),
        ),
    ),
}


@pytest.mark.parametrize("kind", NOT_READY)
def test_a_site_that_is_not_ready_is_named(tmp_path: Path, contract: Contract, kind: str) -> None:
    reason, spoil = NOT_READY[kind]
    prepare(tmp_path, contract)
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.spoil_ready = {12: spoil}
    run_app(tmp_path, grid)
    status, told = participation(tmp_path, 1)["b"]
    assert status == "lost"
    assert reason in told


def test_a_node_that_never_says_it_is_ready_is_waited_for_only_so_long(
    contract: Contract, clock: "Clock"
) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.spoil_ready = {12: lambda asked, reply: None}
    found = GridChannel(grid, "abc", virtual_clock=False).ready()
    assert isinstance(found["a"], SiteInfo)
    assert found["b"] == Lost("no answer")
    assert 3600 <= clock.now - 100 < 3601


def test_a_node_that_becomes_ready_later_is_found_without_asking_the_others(
    contract: Contract, clock: "Clock"
) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.spoil_ready = {12: lambda asked, reply: None}
    channel = GridChannel(grid, "abc", virtual_clock=False)
    channel.ready(deadline_s=60.0)
    for ends, expected in ((False, Lost("no answer")), (True, make_sites(contract)[1].info())):
        if ends:
            grid.spoil_ready = {}
        grid.order, clock.now = [], 100.0
        assert channel.ready(["b"], deadline_s=5.0) == {"b": expected}
        assert grid.order == [("query.ready", 12)]
        assert clock.now - 100 == pytest.approx(0.0 if ends else 5.2, abs=0.21)
    replies = channel.ask(plans_for(contract, "a", "b", "c"), {"model": contract.initial.numpy()}, 60.0)
    assert all(isinstance(reply.answer, Update) for reply in replies)


def test_where_nobody_is_ready_a_question_to_nobody_does_not_wait_again(
    contract: Contract, clock: "Clock"
) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.spoil_ready = dict.fromkeys((11, 12, 13), lambda asked, reply: None)
    channel = GridChannel(grid, "abc", virtual_clock=False)
    channel.ready(deadline_s=60.0)
    grid.order, before = [], clock.now
    assert list(channel.ask({}, {"model": contract.initial.numpy()}, 60.0)) == []
    assert (grid.order, clock.now) == ([], before)


def test_a_node_that_claims_the_name_of_a_known_site_later_is_ignored(contract: Contract) -> None:
    sites = make_sites(contract)
    grid = MemoryGrid({11: sites[0]})
    channel = GridChannel(grid, "ab", virtual_clock=True)
    channel.ready()
    grid.apps[14] = make_client(sites[0])
    assert channel.ready(["b"]) == {"b": Lost("no answer")}
    grid.order = []
    list(channel.ask(plans_for(contract, "a"), {"model": contract.initial.numpy()}, 60.0))
    assert grid.order == [("train", 11)]


def test_of_two_nodes_of_one_name_the_one_that_is_left_joins(contract: Contract) -> None:
    sites = make_sites(contract)
    grid = MemoryGrid({11: sites[0], 12: sites[1], 14: sites[1]})
    channel = GridChannel(grid, "ab", virtual_clock=True)
    assert isinstance(channel.ready()["b"], Lost)
    del grid.apps[14]
    assert channel.ready(["b"]) == {"b": sites[1].info()}


# Clocks.


class Clock:
    """Stands for the module ``time``: only sleeping takes time, so that no test depends on the machine."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(coordinator, "time", clock)
    return clock


def test_a_node_that_never_answers_is_late_on_the_wall_clock(tmp_path: Path, clock: Clock) -> None:
    contract = make_contract(rounds=1, participation={"deadline_s": 0.2})
    prepare(tmp_path, contract, virtual_clock=False)
    grid = MemoryGrid(numbered(make_sites(contract)), {12: in_round(1, lambda asked, reply: None)})
    assert run_app(tmp_path, grid)["status"] == "completed"
    assert participation(tmp_path, 1)["b"] == ("late", "no answer within 0.2 s")
    assert 0.2 < clock.now - 100 < 1
    assert participation(tmp_path, 1)["a"][0] == "counted"


def test_a_reply_that_comes_after_the_deadline_is_late_and_not_counted(tmp_path: Path, clock: Clock) -> None:
    """It is pulled together with the others, long after it was due."""
    contract = make_contract(rounds=1, participation={"deadline_s": 0.2})
    prepare(tmp_path, contract, virtual_clock=False)
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.pull_messages = lambda ids, pull=grid.pull_messages: _after(clock, 0.3, pull, ids)  # type: ignore[method-assign]
    outcome = run_app(tmp_path, grid)
    assert outcome["status"] == "stopped"
    assert {status for status, _ in participation(tmp_path, 1).values()} == {"late"}


def _after(clock: Clock, seconds: float, pull: Callable[[Any], Any], ids: Any) -> Any:
    clock.sleep(seconds)
    return pull(ids)


def test_a_delay_on_the_virtual_clock_is_compared_with_the_deadline(tmp_path: Path) -> None:
    contract = make_contract(rounds=1, participation={"deadline_s": 60.0})
    prepare(tmp_path, contract)

    def delay(seconds: Any) -> Spoil:
        def spoil(asked: Message, reply: Message) -> Message:
            reply.content["clock"] = ConfigRecord({"delay_s": seconds})
            return reply

        return in_round(1, spoil)

    spoil = {11: delay(59.0), 12: delay(61.0), 13: delay("soon")}
    run_app(tmp_path, MemoryGrid(numbered(make_sites(contract)), spoil))
    found = participation(tmp_path, 1)
    assert found["a"] == ("counted", "")
    assert found["b"] == ("late", "answered after 61 s; the deadline is 60 s")
    assert found["c"] == ("rejected", "the reply's clock cannot be read")


def test_on_the_wall_clock_a_reply_cannot_set_its_own_delay(tmp_path: Path) -> None:
    contract = make_contract(rounds=1)
    prepare(tmp_path, contract, virtual_clock=False)

    def spoil(asked: Message, reply: Message) -> Message:
        reply.content["clock"] = ConfigRecord({"delay_s": 1e9})
        return reply

    run_app(tmp_path, MemoryGrid(numbered(make_sites(contract)), {12: in_round(1, spoil)}))
    assert participation(tmp_path, 1)["b"][0] == "counted"


def plans_for(contract: Contract, *sites: str) -> dict[str, RoundPlan]:
    vectors = {"model": contract.initial.numpy()}
    return {
        site: RoundPlan(
            study_hash=contract.study_hash,
            site=site,
            round=1,
            work=("train",),
            broadcast_hash=hash_of_vectors(vectors),
        )
        for site in sites
    }


def test_slow_work_on_one_reply_does_not_make_the_next_one_late(contract: Contract, clock: Clock) -> None:
    channel = GridChannel(MemoryGrid(numbered(make_sites(contract))), "abc", virtual_clock=False)
    channel.ready()
    found = []
    for reply in channel.ask(plans_for(contract, "a", "b"), {"model": contract.initial.numpy()}, 0.5):
        found.append(reply)
        clock.sleep(0.6)
    assert [type(reply.answer) for reply in found] == [Update, Update]


def test_a_reply_that_comes_twice_counts_once(contract: Contract) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    channel = GridChannel(grid, "abc", virtual_clock=True)
    channel.ready()
    grid.twice = True
    replies = list(channel.ask(plans_for(contract, "a", "b"), {"model": contract.initial.numpy()}, 60.0))
    assert sorted(reply.site for reply in replies) == ["a", "b"]


def test_a_reply_to_an_earlier_question_is_not_taken_for_the_answer(contract: Contract) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    channel = GridChannel(grid, "abc", virtual_clock=True)
    channel.ready()
    vectors = {"model": contract.initial.numpy()}
    plans = plans_for(contract, "a")
    grid.push_messages([Message(plan_content(plans["a"], array_record(vectors)), 11, "train")])
    grid.stale, grid._finished = grid._finished, []
    again = {"a": plans["a"].model_copy(update={"attempt": 2})}
    (reply,) = channel.ask(again, vectors, 60.0)
    assert isinstance(reply.answer, Update)
    assert reply.answer.header.plan == again["a"].identity


def test_a_node_that_speaks_for_another_is_heard_once_and_the_other_not_at_all(contract: Contract) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    channel = GridChannel(grid, "abc", virtual_clock=True)
    channel.ready()
    for forged in ({12: 11}, {12: 99}):
        grid.forged = forged
        asked = plans_for(contract, "a", "b")
        replies = list(channel.ask(asked, {"model": contract.initial.numpy()}, 60.0))
        assert sorted(reply.site for reply in replies) == ["a", "b"]
        answers = {reply.site: reply.answer for reply in replies}
        assert isinstance(answers["a"], Update)
        assert isinstance(answers["b"], Lost)


def test_neither_of_two_nodes_of_one_name_is_asked_later(contract: Contract) -> None:
    sites = make_sites(contract)
    grid = MemoryGrid({11: sites[0], 12: sites[1], 14: sites[1]})
    channel = GridChannel(grid, "ab", virtual_clock=True)
    channel.ready()
    replies = {
        reply.site: reply.answer
        for reply in channel.ask(plans_for(contract, "a", "b"), {"model": contract.initial.numpy()}, 60.0)
    }
    assert isinstance(replies["a"], Update)
    assert replies["b"] == Lost("it was not ready")


def test_sizes_are_of_the_arrays_that_went_and_came(contract: Contract) -> None:
    channel = GridChannel(MemoryGrid(numbered(make_sites(contract))), "abc", virtual_clock=True)
    (reply,) = channel.ask(plans_for(contract, "a"), {"model": contract.initial.numpy()}, 60.0)
    assert (reply.sent_bytes, reply.received_bytes) == (32, 32)


def test_a_message_that_cannot_be_sent_and_a_site_that_was_not_ready_are_named(contract: Contract) -> None:
    grid = MemoryGrid(numbered(make_sites(contract)))
    grid.unsent = {12}
    channel = GridChannel(grid, "abcz", virtual_clock=True)
    channel.ready()
    plans = plans_for(contract, "a", "b", "z")
    replies = {reply.site: reply for reply in channel.ask(plans, {"model": contract.initial.numpy()}, 60.0)}
    assert isinstance(replies["a"].answer, Update)
    assert replies["b"].answer == Lost("the plan could not be sent to it")
    assert replies["z"].answer == Lost("it was not ready")


def test_updates_arrive_bit_by_bit(contract: Contract) -> None:
    site = make_sites(contract)[0]
    channel = GridChannel(MemoryGrid({11: site}), "a", virtual_clock=True)
    plans = plans_for(contract, "a")
    (reply,) = channel.ask(plans, {"model": contract.initial.numpy()}, 60.0)
    assert isinstance(reply.answer, Update)
    expected = site.answer(plans["a"], {"model": contract.initial.numpy()})
    assert reply.answer.header == expected.header
    assert torch.equal(torch.tensor(reply.answer.vectors["model"]), torch.tensor(expected.vectors["model"]))
