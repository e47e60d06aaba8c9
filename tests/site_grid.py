"""A grid with signing sites in this process, for tests of the channel to real sites."""

import itertools
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from study_factory import LogisticSite

from fedcad.server.site_channel import READY
from fedcad.shared.envelope import ANSWER, PLAN, Hashes, ready_purpose, sign_texts, verify_texts
from fedcad.shared.flower_internals.messages import (
    enter_task,
    make_message,
    metadata_of,
    name_message,
    reply_metadata,
)
from fedcad.shared.flower_records import answer_content, put_texts, read_plan, read_texts
from fedcad.shared.messages import Update, encode
from fedcad.shared.signing import PublicKey, SigningKey

COORDINATOR = SigningKey.generate()
KEYS = {name: SigningKey.generate() for name in "abc"}
Act = Callable[["Node", Message], RecordDict | Error | None]


class Node:
    """A real site's answers, signed; what `act` returns instead replaces them."""

    def __init__(
        self,
        site: LogisticSite,
        key: SigningKey | None = None,
        coordinator: PublicKey = COORDINATOR.public,
    ) -> None:
        self.site = site
        self.key = key or KEYS[site.name]
        self.coordinator = coordinator
        self.act: Act | None = None
        self.asked: list[RecordDict] = []

    def answer(self, message: Message) -> RecordDict | Error | None:
        self.asked.append(message.content)
        if self.act is not None:
            return self.act(self, message)
        return self.honest(message)

    def honest(self, message: Message) -> RecordDict:
        texts = read_texts(message.content)
        verify_texts(texts, PLAN, self.coordinator)
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
