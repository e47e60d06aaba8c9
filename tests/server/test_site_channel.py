"""The channel to real sites, over a grid whose nodes come, go, lie and answer late."""

import itertools
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from study_factory import LogisticSite, make_contract, make_sites

from fedcad.server import site_channel as module
from fedcad.server.channel import Lost, Reply
from fedcad.server.site_channel import MOST_TRIES, READY, Member, Question, SiteChannel
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.envelope import ANSWER, PLAN, Hashes, ready_purpose, sign_texts, verify_texts
from fedcad.shared.flower_records import answer_content, put_texts, read_plan, read_texts
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, encode
from fedcad.shared.signing import SigningKey
from fedcad.simulations.engines.flower_internals import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)

COORDINATOR = SigningKey.generate()
KEYS = {name: SigningKey.generate() for name in "abc"}
Act = Callable[["Node", Message], RecordDict | Error | None]


class Node:
    """A real site's answers, signed; what `act` returns instead replaces them."""

    def __init__(self, site: LogisticSite) -> None:
        self.site = site
        self.key = KEYS[site.name]
        self.act: Act | None = None
        self.asked: list[RecordDict] = []

    def answer(self, message: Message) -> RecordDict | Error | None:
        self.asked.append(message.content)
        if self.act is not None:
            return self.act(self, message)
        return self.honest(message)

    def honest(self, message: Message) -> RecordDict:
        texts = read_texts(message.content)
        verify_texts(texts, PLAN, COORDINATOR.public)
        if message.metadata.message_type == READY:
            purpose = ready_purpose(texts["question"])
            return put_texts(sign_texts({"siteinfo": encode(self.site.info())}, purpose, self.key))
        plan, vectors, broadcast_hash = read_plan(message.content)
        assert broadcast_hash == plan.broadcast_hash
        return self.signed(self.site.answer(plan, vectors))

    def signed(self, update: Update, hashes: Hashes | None = None) -> RecordDict:
        texts = {"header": encode(update.header), "hashes": encode(hashes or Hashes.of(update))}
        content = put_texts(sign_texts(texts, ANSWER, self.key))
        whole = answer_content(update)
        for name in ("vectors", "statistics"):
            content[name] = ArrayRecord({k: Array(v.numpy()) for k, v in whole[name].items()})  # type: ignore[union-attr]
        return content


class SiteGrid(Grid):
    """Nodes with the names under which they were registered."""

    def __init__(self, nodes: list[Node]) -> None:
        enter_task()
        self.nodes = dict(enumerate(nodes, start=21))
        self.offline: set[str] = set()
        self.looked = 0
        self.back: dict[str, int] = {}
        """Site → after how many looks at the nodes it is back."""
        self._finished: list[Message] = []
        self._numbers = itertools.count()

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Any:
        self.looked += 1
        self.offline -= {name for name, looks in self.back.items() if self.looked >= looks}
        return [
            SimpleNamespace(node_id=number, name=node.site.name)
            for number, node in self.nodes.items()
            if node.site.name not in self.offline
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        identity = f"m{next(self._numbers)}"
        name_message(message, identity)
        body = self.nodes[message.metadata.dst_node_id].answer(message)
        if body is not None:
            told = reply_metadata(metadata_of(message), time.time())
            told["src_node_id"] = 1  # Flower's own error replies do not say who failed.
            self._finished.append(make_message(told, body))
        return identity

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        assert len(wanted) == 1, "one update in memory at a time"
        found = [m for m in self._finished if m.metadata.reply_to_message_id in wanted]
        self._finished = [m for m in self._finished if m.metadata.reply_to_message_id not in wanted]
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        raise NotImplementedError


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
        question = Question(self.contract.terms, self.contract.terms.text(), "{}", COORDINATOR)
        self.channel = SiteChannel(
            self.grid,
            lambda: self.members,
            question,
            contact=lambda site, phase: self.contacts.append((site, phase)),
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
    assert reply.answer.is_late
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
