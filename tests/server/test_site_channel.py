"""The channel to real sites, over a grid whose nodes come, go, lie and answer late."""

import gc
import time
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from site_grid import COORDINATOR, KEYS, Node, SiteGrid
from study_factory import make_contract, make_sites

from fedcad.server import site_channel as module
from fedcad.server.channel import Lost, Reply
from fedcad.server.site_channel import MOST_TRIES, Member, Question, SiteChannel
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.envelope import ANSWER, ready_purpose, sign_texts
from fedcad.shared.flower_internals.grid import UNREADABLE
from fedcad.shared.flower_internals.messages import make_message, metadata_of
from fedcad.shared.flower_records import put_texts, read_plan, read_texts, serialised_record
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, encode


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)


class World:
    def __init__(self, **changes: Any) -> None:
        self.contract: Contract = make_contract(**changes)
        self.nodes = [Node(site) for site in make_sites(self.contract)]
        self.grid = SiteGrid(self.nodes)
        self.members = {name: Member(key.public) for name, key in KEYS.items()}
        self.contacts: list[tuple[str, str]] = []
        self.hostile = RecordDict()
        question = Question(self.contract.terms, self.contract.terms.text(), "{}", COORDINATOR)
        self.channel = SiteChannel(
            self.grid,
            lambda: self.members,
            question,
            contact=lambda site, phase, version="": self.contacts.append((site, phase)),
        )

    def plans(self, *sites: str, **changes: Any) -> dict[str, RoundPlan]:
        facts = {"round": 1, "work": ("train",), "broadcast_hash": hash_of_vectors(self.vectors)} | changes
        return {
            site: RoundPlan(study_hash=self.contract.study_hash, site=site, **facts)
            for site in sites or "abc"
        }

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        return {"model": self.contract.initial.numpy()}

    def ask(self, *sites: str, deadline_s: float = 30.0, **changes: Any) -> dict[str, Reply]:
        replies = self.channel.ask(self.plans(*sites, **changes), self.vectors, deadline_s)
        found = list(replies)
        assert len({reply.site for reply in found}) == len(found)
        return {reply.site: reply for reply in found}


@pytest.fixture
def world() -> World:
    return World()


def test_ready_sites_say_what_they_bring(world: World) -> None:
    found = world.channel.ready()
    assert {name: isinstance(info, SiteInfo) for name, info in found.items()} == dict.fromkeys("abc", True)
    assert set(world.contacts) == {(name, "ready") for name in "abc"}


def test_every_site_that_is_not_ready_has_its_reason(world: World) -> None:
    world.grid.offline = {"a"}
    world.members["b"] = Member(KEYS["b"].public, "revoked: left the consortium")
    world.nodes[2].act = lambda node, message: put_texts(
        sign_texts(
            {"refusal": encode(Refusal(plan="0" * 64, site="c", code="not-trusted"))},
            ready_purpose(read_texts(message.content)["question"]),
            node.key,
        )
    )
    found = world.channel.ready()
    assert found == {
        "a": Lost("not connected"),
        "b": Lost("revoked: left the consortium"),
        "c": Lost("refused: not-trusted"),
    }
    assert not world.nodes[1].asked


def test_an_answer_to_an_earlier_question_is_none(world: World) -> None:
    kept: list[RecordDict] = []

    def record(node: Node, message: Message) -> RecordDict:
        kept.append(node.honest(message))
        return kept[0]

    world.nodes[0].act = record
    assert isinstance(world.channel.ready(["a"])["a"], SiteInfo)
    second = world.channel.ready(["a"])["a"]
    assert isinstance(second, Lost)
    assert second.is_garbage


def test_a_site_cannot_answer_as_another(world: World) -> None:
    world.nodes[0].site, world.nodes[1].site = world.nodes[1].site, world.nodes[0].site
    for found in world.channel.ready(["a", "b"]).values():
        assert isinstance(found, Lost)
        assert found.is_garbage


def test_updates_arrive_with_their_bytes(world: World) -> None:
    replies = world.ask()
    size = world.contract.layout.size * 4
    for reply in replies.values():
        assert isinstance(reply.answer, Update)
        assert reply.received_bytes >= size
        assert reply.sent_bytes >= size
    direct = {site.name: site for site in make_sites(world.contract)}
    for name, reply in replies.items():
        expected = direct[name].answer(world.plans()[name], world.vectors)
        assert isinstance(reply.answer, Update)
        assert np.array_equal(reply.answer.vectors["model"], expected.vectors["model"])


def test_float16_halves_the_message_and_keeps_the_bits_of_what_was_rounded() -> None:
    world = World(exchange={"precision": "float16"})
    vectors = {"model": world.vectors["model"].astype(np.float16).astype(np.float32)}
    plans = world.plans("a", broadcast_hash=hash_of_vectors(vectors))
    (reply,) = world.channel.ask(plans, vectors, 30.0)
    assert isinstance(reply.answer, Update)
    assert world.nodes[0].asked[0]["vectors"]["model"].dtype == "float16"  # type: ignore[index]
    tested = world.plans("a", broadcast_hash=hash_of_vectors(vectors), round=0, work=("test",))
    list(world.channel.ask(tested, vectors, 30.0))
    assert world.nodes[0].asked[1]["vectors"]["model"].dtype == "float32"  # type: ignore[index]


@pytest.mark.parametrize("change", ["vector", "statistic", "header", "signature", "key", "unsigned"])
def test_what_changes_on_the_way_is_rejected(world: World, change: str) -> None:
    def act(node: Node, message: Message) -> RecordDict:
        plan, vectors, _ = read_plan(message.content)
        update = node.site.answer(plan, vectors)
        content = node.signed(update)
        if change == "vector":
            content["vectors"] = ArrayRecord({"model": Array(update.vectors["model"] + np.float32(1))})
        elif change == "statistic":
            content["statistics"] = ArrayRecord({"test": Array(np.ones((1, 2), np.int64))})
        elif change == "header":
            other = update.header.model_copy(update={"round": 2})
            content["header"] = put_texts({"header": encode(other)})["header"]
        elif change == "signature":
            content["signature"] = put_texts({"signature": "0" * 128})["signature"]
        elif change == "key":
            texts = read_texts(content)
            del texts["signature"]
            content.update(put_texts(sign_texts(texts, ANSWER, KEYS["b"])))
        else:
            del content["signature"]
        return content

    world.nodes[0].act = act
    answer = world.ask()["a"].answer
    assert isinstance(answer, Lost)
    assert answer.is_garbage


def test_a_site_revoked_during_the_round_is_not_counted(world: World) -> None:
    def act(node: Node, message: Message) -> RecordDict:
        world.members["a"] = Member(KEYS["a"].public, "revoked: stolen")
        return node.honest(message)

    world.nodes[0].act = act
    assert world.ask()["a"].answer == Lost("revoked: stolen")


def test_a_site_that_lost_its_connection_gets_the_same_plan_again(world: World) -> None:
    def act(node: Node, message: Message) -> RecordDict | Error:
        if len(node.asked) == 1:
            world.grid.offline = {"a"}
            world.grid.back = {"a": world.grid.looked + 3}
            return Error(5, "Node unavailable")
        return node.honest(message)

    world.nodes[0].act = act
    assert isinstance(world.ask()["a"].answer, Update)
    first, second = (read_texts(content) for content in world.nodes[0].asked)
    assert first == second


def test_a_site_that_is_not_connected_is_waited_for_until_the_deadline(world: World) -> None:
    world.grid.offline = {"b"}
    started = time.monotonic()
    reply = world.ask(deadline_s=0.3)["b"]
    assert time.monotonic() - started >= 0.3
    assert isinstance(reply.answer, Lost)
    assert not reply.answer.is_late, "it is lost: no later round may wait for it"
    assert "not connected" in reply.answer.reason


def test_a_silent_site_is_late_and_the_others_count(world: World) -> None:
    world.nodes[1].act = lambda node, message: None
    replies = world.ask(deadline_s=0.3)
    assert isinstance(replies["a"].answer, Update)
    late = replies["b"].answer
    assert isinstance(late, Lost)
    assert late.is_late


def test_a_process_that_always_dies_is_given_up(world: World) -> None:
    world.nodes[0].act = lambda node, message: Error(8, "crashed")
    answer = world.ask()["a"].answer
    assert isinstance(answer, Lost)
    assert not answer.is_late
    assert len(world.nodes[0].asked) == MOST_TRIES


def test_a_failure_that_the_site_reports_is_final(world: World) -> None:
    world.nodes[0].act = lambda node, message: Error(100, "the site failed (DataError)")
    assert world.ask()["a"].answer == Lost("the site failed (DataError)")
    assert len(world.nodes[0].asked) == 1


RAW = {
    "no known type": ("CustomDataClass", b"x"),
    "no JSON": ("Array", b"{"),
    "an array without facts": ("Array", b"{}"),
    "an array of a list": ("Array", b"[]"),
    "a shape of fractions": ("Array", b'{"dtype":"f","shape":[1.5],"stype":"n","arraychunk_ids":[]}'),
    "a piece that is not there": ("Array", b'{"dtype":"f","shape":[1],"stype":"n","arraychunk_ids":[9]}'),
    "deep": ("Array", b"[" * 100_000),
    "no message": ("Message", b"\xff\xff\xff"),
    "a message of nothing": ("Message", b""),
    "no texts": ("ConfigRecord", b"\xff\xff\xff"),
    "another object": ("ArrayChunk", b"x"),
}


@pytest.mark.parametrize("what", RAW)
def test_bytes_that_are_no_message_end_neither_round_nor_study(world: World, what: str) -> None:
    """Flower's own reader raises over each of these; a hostile site sends them again and again."""
    kind, body = RAW[what]
    content = f"{kind}  {len(body)}".encode() + b"\0" + body
    with pytest.raises(UNREADABLE):
        identity = get_object_id(content)
        inflate_object_from_contents(identity, {identity: content}).metadata  # type: ignore[attr-defined]  # noqa: B018
    pull = world.grid.pull_messages

    def pull_messages(message_ids: Iterable[str]) -> Iterable[Message]:
        found = list(pull(message_ids))
        if found and found[0].content == world.hostile:
            identity = get_object_id(content)
            inflate_object_from_contents(identity, {identity: content}).metadata  # type: ignore[attr-defined]  # noqa: B018
        return found

    world.nodes[0].act = lambda node, message: world.hostile
    world.grid.pull_messages = pull_messages  # type: ignore[method-assign]
    replies = world.ask()
    assert isinstance(replies["a"].answer, Lost)
    assert replies["a"].answer.is_garbage
    assert isinstance(replies["b"].answer, Update)
    ready = world.channel.ready()
    assert isinstance(ready["a"], Lost)
    assert isinstance(ready["b"], SiteInfo)


def test_a_message_that_nobody_asked_for_is_not_taken_for_a_reply(world: World) -> None:
    pull = world.grid.pull_messages

    def pull_messages(message_ids: Iterable[str]) -> Iterable[Message]:
        found = list(pull(message_ids))
        other = {**metadata_of(found[0]), "reply_to_message_id": ""} if found else {}
        return [make_message(other, RecordDict()), *found, *found] if found else []

    world.grid.pull_messages = pull_messages  # type: ignore[method-assign]
    assert all(isinstance(reply.answer, Update) for reply in world.ask().values())


@pytest.mark.parametrize("name", ["\ud800", "name of a patient: ü"])
def test_names_that_cannot_be_hashed_are_rejected(world: World, name: str) -> None:
    def act(node: Node, message: Message) -> RecordDict:
        plan, vectors, _ = read_plan(message.content)
        content = node.signed(node.site.answer(plan, vectors))
        if len(node.asked) == 1:
            content[name] = content["header"]
        else:
            content["vectors"] = ArrayRecord({name: Array(vectors["model"])})
        return content

    world.nodes[0].act = act
    for _ in range(2):
        answer = world.ask("a")["a"].answer
        assert isinstance(answer, Lost)
        assert answer.is_garbage


def test_a_site_that_may_not_take_part_is_neither_asked_nor_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.grid.offline = {"a", "b"}
    world.members["a"] = Member(KEYS["a"].public, "revoked: stolen")
    world.nodes[2].act = lambda node, message: (
        world.members.update(b=Member(KEYS["b"].public, "expired")) or node.honest(message)
    )
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    started = time.monotonic()
    replies = world.ask(deadline_s=600.0)
    assert time.monotonic() - started < 60
    assert replies["a"].answer == Lost("revoked: stolen")
    assert replies["b"].answer == Lost("expired")
    assert isinstance(replies["c"].answer, Update)
    del world.members["c"]
    assert world.ask("c")["c"].answer == Lost("it is not enrolled")


def test_the_broadcast_is_serialised_once_for_all_and_let_go_while_answers_are_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[ArrayRecord]] = []

    def serialise(arrays: Any) -> ArrayRecord:
        record = serialised_record(arrays)
        made.append(weakref.ref(record))
        return record

    monkeypatch.setattr(module, "serialised_record", serialise)
    replies = world.channel.ask(world.plans(), world.vectors, 30.0)
    next(replies)
    held = [broadcast for broadcast in gc.get_objects() if type(broadcast) is module._Broadcast]
    assert len(made) == 1
    assert [broadcast._record for broadcast in held] == [None]
    assert len(list(replies)) == 2


def test_a_long_wait_asks_less_often() -> None:
    pauses = [module._pause(seconds) for seconds in (0.0, 10.0, 50.0, 1e6)]
    assert pauses == [module.POLL_S, pytest.approx(0.4), pytest.approx(2.0), module.LONGEST_POLL_S]


@pytest.mark.parametrize(("quorum", "waits"), [(2, False), (3, True)])
def test_a_hung_site_does_not_hold_up_a_quorum(
    monkeypatch: pytest.MonkeyPatch, quorum: int, waits: bool
) -> None:
    monkeypatch.setattr(module, "QUORUM_GRACE_S", 0.05)
    world = World(participation={"quorum": quorum, "deadline_s": 60.0})
    world.nodes[1].act = lambda node, message: None
    started = time.monotonic()
    found = world.channel.ready(deadline_s=0.6)
    assert (time.monotonic() - started >= 0.6) is waits
    assert isinstance(found["b"], Lost)
    assert isinstance(found["a"], SiteInfo)
