"""The channel to real sites: signed questions and answers over a Flower grid, on wall time.

A site that cannot be reached gets the same plan again when it is back, until the deadline: it answers the
same plan with the same bytes. Every answer is checked against the key with which its site was enrolled.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedcad.server.channel import FIRST_READY_S, Lost, Reply
from fedcad.shared.contract import Terms
from fedcad.shared.envelope import ANSWER, PLAN, Hashes, ready_purpose, sign_texts, verify_texts
from fedcad.shared.errors import IdentityError, ProtocolError
from fedcad.shared.exchange import DTYPES, Precision
from fedcad.shared.flower_internals.grid import UNREADABLE
from fedcad.shared.flower_records import (
    put_texts,
    read_answer,
    read_site_info,
    read_texts,
    serialised_record,
)
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, Vectors, decode, encode
from fedcad.shared.signing import PublicKey, SigningKey

_LONGEST_VERSION = 40


class Contact(Protocol):
    """Told of a site's signs of life."""

    def __call__(self, site: str, phase: str, version: str = "") -> None:
        """Take what a site is doing, and the version of FedCAD that it runs, where it said so."""
        ...


READY = f"{MessageType.QUERY}.ready"
POLL_S = 0.5
"""How long to wait before answers are looked for again, in the first seconds of a round."""
LONGEST_POLL_S = 3.0
_POLL_SHARE = 0.04
"""Later, this share of the round's seconds: a question costs the SuperLink more than it brings."""
LOOK_EVERY_S = 10.0
"""How often connected nodes count as a sign of life while they work."""
QUORUM_GRACE_S = 300.0
"""How long the start of a study waits for more sites once a quorum is ready; a first index takes its time."""
MOST_TRIES = 5
"""How often one plan is sent to one site whose process dies over it, before the round goes on without it."""
_UNREACHABLE = {3, 4, 5, 8}
"""Flower's codes for: message, reply or node unavailable, app crashed. The site may be back."""
_GARBAGE = Lost("its answer cannot be read: it is no message, or larger than the study's", is_garbage=True)


@dataclass(frozen=True)
class Member:
    """An enrolled site.

    Attributes:
        signing_key: With which it signs its answers.
        objection: Why it may not take part now (revoked, expired), else empty.
    """

    signing_key: PublicKey
    objection: str = ""


@dataclass(frozen=True)
class Question:
    """What is signed and sent with every question.

    Attributes:
        terms: Terms of the contract.
        contract: Their text.
        seal: Text of the coordinator's seal under them.
        key: The coordinator's signing key.
    """

    terms: Terms
    contract: str
    seal: str
    key: SigningKey


@dataclass
class _Asked:
    """One question to one site."""

    message: Callable[[int], Message]
    reason: str = "it is not connected"
    tries: int = 0


@dataclass
class _Round:
    """Questions that are still open: those to be sent, and those sent, by message id."""

    unsent: dict[str, _Asked]
    sent: Callable[[], None] = lambda: None
    waiting: dict[str, str] = field(default_factory=dict)
    asked: dict[str, _Asked] = field(default_factory=dict)


class _Broadcast:
    """Vectors that are serialised while plans are sent, and not while answers are waited for.

    Why: they are as large as an update, and lie in the coordinator's state already.
    """

    def __init__(self, vectors: Vectors, precision: Precision) -> None:
        self._vectors = vectors
        self._dtype = DTYPES[precision]
        self._record: ArrayRecord | None = None

    @property
    def size(self) -> int:
        """Bytes of the values as they travel."""
        return sum(each.size for each in self._vectors.values()) * np.dtype(self._dtype).itemsize

    def record(self) -> ArrayRecord:
        """Return the record, the same one until it is released."""
        if self._record is None:
            exchanged = {name: each.astype(self._dtype, copy=False) for name, each in self._vectors.items()}
            self._record = serialised_record(exchanged)
        return self._record

    def release(self) -> None:
        """Let the bytes go; a site that returns gets them made anew."""
        self._record = None


class SiteChannel:
    """The enrolled sites of a consortium."""

    def __init__(
        self,
        grid: Grid,
        members: Callable[[], Mapping[str, Member]],
        question: Question,
        *,
        contact: Contact,
    ) -> None:
        """Use a grid.

        Args:
            grid: Where messages go; its nodes bear the names under which the coordinator registered them.
            members: Returns the enrolled sites as they are now.
            question: Contract and key.
            contact: Is told of every sign of life.
        """
        self._grid = grid
        self._members = members
        self._question = question
        self._contact = contact

    def enrolled(self) -> frozenset[str]:
        """Return the names of all sites that are enrolled now, also of those that may not take part."""
        return frozenset(self._members())

    def ready(
        self, sites: Collection[str] | None = None, *, deadline_s: float = FIRST_READY_S
    ) -> Mapping[str, SiteInfo | Lost]:
        """Ask connected sites whether they are ready; the others are named at once."""
        members = {name: member for name, member in self._members().items() if sites is None or name in sites}
        found: dict[str, SiteInfo | Lost] = {
            name: Lost(member.objection) for name, member in members.items() if member.objection
        }
        online = self._online()
        asked = sorted(name for name in members if name not in found and name in online)
        number = secrets.token_hex(16)
        texts = {"question": number, "contract": self._question.contract, "seal": self._question.seal}
        content = put_texts(sign_texts(texts, PLAN, self._question.key))
        open_round = _Round({name: _Asked(lambda node: Message(content, node, READY)) for name in asked})
        quorum = self._question.terms.study.participation.quorum

        def limit() -> float:
            """Return how long to wait: once a quorum is ready, no hung site holds up the others."""
            ready = sum(isinstance(answer, SiteInfo) for answer in found.values())
            return min(deadline_s, QUORUM_GRACE_S) if ready >= quorum else deadline_s

        for name, message, _ in self._replies(open_round, limit, stays=False):
            found[name] = self._read_ready(name, message, members[name], number)
        for name in members:
            reason = (
                "no answer yet; it may still be reading its archive" if name in online else "not connected"
            )
            found.setdefault(name, Lost(reason))
        return found

    def _read_ready(self, name: str, message: Message | Lost, member: Member, number: str) -> SiteInfo | Lost:
        if isinstance(message, Lost):
            return message
        try:
            content = _content(message)
            texts = read_texts(content)
            verify_texts(texts, ready_purpose(number), member.signing_key)
            if "refusal" in texts:
                return Lost(f"refused: {decode(Refusal, texts['refusal']).code}")
            info = read_site_info(content)
        except (ProtocolError, IdentityError) as error:
            return Lost(str(error), is_garbage=True)
        if info.site != name:
            return Lost("it answered as another site", is_garbage=True)
        self._contact(name, "ready", texts.get("version", "")[:_LONGEST_VERSION])
        return info

    def ask(self, plans: Mapping[str, RoundPlan], vectors: Vectors, deadline_s: float) -> Iterator[Reply]:
        """Send plans and yield one reply for each site, as they arrive; one update is in memory at a time."""
        broadcast = _Broadcast(vectors, self._precision(plans))
        sent, members = broadcast.size, self._members()
        allowed = [site for site in plans if site in members and not members[site].objection]
        for site in sorted(plans.keys() - set(allowed)):
            yield Reply(site, Lost(members[site].objection if site in members else "it is not enrolled"))
        unsent = {site: _Asked(self._planned(plans[site], broadcast)) for site in allowed}
        open_round = _Round(unsent, sent=broadcast.release)
        for site, message, delay in self._replies(open_round, lambda: deadline_s, stays=True):
            answer = self._read_answer(site, message, members)
            del message
            self._contact(site, "answered")
            yield Reply(site, answer, delay, sent, _size(answer))
            del answer
        missing = {**open_round.unsent, **_unanswered(open_round)}
        online = self._online() if missing else {}
        for site, asked in missing.items():
            reason = f"no answer within {deadline_s:g} s ({asked.reason})"
            # A site that is gone is lost, not late: no later round waits for it until it is back.
            yield Reply(site, Lost(reason, is_late=site in online), deadline_s, sent)

    def _precision(self, plans: Mapping[str, RoundPlan]) -> Precision:
        """Models that are only tested travel whole: they are what sites keep."""
        is_test = all(plan.work == ("test",) for plan in plans.values())
        return "float32" if is_test else self._question.terms.study.exchange.precision

    def _planned(self, plan: RoundPlan, broadcast: "_Broadcast") -> Callable[[int], Message]:
        def make(node: int) -> Message:
            content = put_texts(sign_texts({"plan": encode(plan)}, PLAN, self._question.key))
            content["vectors"] = broadcast.record()
            return Message(content, node, MessageType.TRAIN, group_id=str(plan.round))

        return make

    def _read_answer(
        self, site: str, message: Message | Lost, members: Mapping[str, Member]
    ) -> Update | Refusal | Lost:
        if isinstance(message, Lost):
            return message
        if message.has_error():
            return Lost(str(message.error.reason)[:500])
        member = self._members().get(site, members[site])
        if member.objection:
            return Lost(member.objection)
        try:
            texts = read_texts(message.content)
            verify_texts(texts, ANSWER, member.signing_key)
            answer = read_answer(message.content)
            if isinstance(answer, Update) and Hashes.of(answer) != decode(Hashes, texts.get("hashes")):
                raise ProtocolError("the arrays are not those that the site signed; they changed on the way")
        except (ProtocolError, IdentityError) as error:
            return Lost(str(error), is_garbage=True)
        return answer

    def _online(self) -> dict[str, int]:
        """Return the connected nodes by the name under which they were registered."""
        return {node.name: node.node_id for node in self._grid.get_nodes() if node.name}

    def _replies(
        self, open_round: _Round, limit: Callable[[], float], *, stays: bool
    ) -> Iterator[tuple[str, Message | Lost, float]]:
        """Yield (site, message, seconds) until all have answered or the deadline has passed.

        In the message's place is why there will be none: the site sent something else, or was revoked.

        Args:
            open_round: Questions; what is left in it afterwards was not answered.
            limit: Returns the seconds after which to give up.
            stays: Whether a site that cannot be reached is asked again when it is back.
        """
        started = looked = time.monotonic()
        while open_round.unsent or open_round.waiting:
            self._send(open_round)
            if time.monotonic() - looked > LOOK_EVERY_S:
                looked = time.monotonic()
                for site, objection in self._look(open_round):
                    yield site, Lost(objection), time.monotonic() - started
            arrived = False
            for identity in list(open_round.waiting):
                for message in self._pull(identity):
                    site = open_round.waiting.pop(identity)
                    if (
                        isinstance(message, Message)
                        and stays
                        and _may_return(message, open_round.asked[site])
                    ):
                        self._ask_again(site, message, open_round)
                        continue
                    arrived = True
                    yield site, message, time.monotonic() - started
                    del message
            if time.monotonic() - started > limit() or not (stays or open_round.waiting):
                return
            if not arrived:
                time.sleep(_pause(time.monotonic() - started))

    def _pull(self, identity: str) -> Sequence[Message | Lost]:
        """Return the reply to a message if it is here.

        Flower also returns what was sent to the coordinator unasked, and builds objects out of whatever a
        site sent: neither may end the study.
        """
        try:
            pulled = self._grid.pull_messages([identity])
            return [each for each in pulled if each.metadata.reply_to_message_id == identity][:1]
        except UNREADABLE:
            return [_GARBAGE]

    def _send(self, open_round: _Round) -> None:
        """Send what can be sent now."""
        if not open_round.unsent:
            return
        online = self._online()
        for site in sorted(set(open_round.unsent) & set(online)):
            asked = open_round.unsent.pop(site)
            asked.tries += 1
            asked.reason = "it was asked"
            (identity,) = self._grid.push_messages([asked.message(online[site])]) or (None,)
            if identity is None:
                asked.reason = "the plan could not be sent to it"
                open_round.unsent[site] = asked
                continue
            open_round.asked[site] = asked
            open_round.waiting[identity] = site
        open_round.sent()

    def _look(self, open_round: _Round) -> list[tuple[str, str]]:
        """Note who is connected; return who may not take part any more, and why: nobody waits for them."""
        for site in sorted(set(open_round.waiting.values()) & set(self._online())):
            self._contact(site, "working")
        excluded = {name: member.objection for name, member in self._members().items() if member.objection}
        gone = sorted({*open_round.unsent, *open_round.waiting.values()} & set(excluded))
        for site in gone:
            open_round.unsent.pop(site, None)
        open_round.waiting = {each: site for each, site in open_round.waiting.items() if site not in gone}
        return [(site, excluded[site]) for site in gone]

    def _ask_again(self, site: str, message: Message, open_round: _Round) -> None:
        asked = open_round.asked[site]
        asked.reason = f"connection lost: {str(message.error.reason)[:200]}"
        open_round.unsent[site] = asked


def _pause(seconds: float) -> float:
    return min(max(POLL_S, _POLL_SHARE * seconds), LONGEST_POLL_S)


def _may_return(message: Message, asked: _Asked) -> bool:
    return message.has_error() and message.error.code in _UNREACHABLE and asked.tries < MOST_TRIES


def _unanswered(open_round: _Round) -> dict[str, _Asked]:
    return {site: open_round.asked[site] for site in open_round.waiting.values()}


def _content(message: Message) -> RecordDict:
    if message.has_error():
        raise ProtocolError(str(message.error.reason)[:500])
    content: RecordDict = message.content
    return content


def _size(answer: Update | Refusal | Lost) -> int:
    if not isinstance(answer, Update):
        return 0
    vectors = sum(vector.nbytes for vector in answer.vectors.values())
    return vectors + sum(statistics.nbytes for statistics in answer.statistics.values())
