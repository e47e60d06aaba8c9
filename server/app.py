"""Flower adapter of the coordinator: a Grid as a channel, a run folder as a study run. No arithmetic."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedcad.server.channel import FIRST_READY_S, Lost, Reply
from fedcad.server.checkpoint import CheckpointStore
from fedcad.server.event_log import EventLog, Observer
from fedcad.server.outcome import write_outcome
from fedcad.server.rounds import StudyRun, first_checkpoint
from fedcad.server.settings import RunSettings
from fedcad.server.study_folder import StudyFolder
from fedcad.server.submission import SEAL
from fedcad.shared.contract import Contract
from fedcad.shared.errors import ProtocolError, QuorumError
from fedcad.shared.flower_records import (
    array_record,
    plan_content,
    read_answer,
    read_site_info,
    records_of,
)
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, Vectors

READY = f"{MessageType.QUERY}.ready"
_POLL_S = 0.2


class GridChannel:
    """A Flower Grid as a channel to the enrolled sites."""

    def __init__(self, grid: Grid, sites: Iterable[str], *, virtual_clock: bool) -> None:
        """Use a grid.

        Args:
            grid: Where messages go.
            sites: Names of the enrolled sites; answers of others are ignored.
            virtual_clock: True where delays come with the reply (simulation) and never from wall time.
        """
        self._grid = grid
        self._sites = frozenset(sites)
        self._virtual_clock = virtual_clock
        self._nodes: dict[str, int] = {}
        self._cases: dict[str, int] = {}

    def enrolled(self) -> frozenset[str]:
        """Return the names of all sites of the simulation."""
        return self._sites

    def ready(
        self, sites: Collection[str] | None = None, *, deadline_s: float = FIRST_READY_S
    ) -> Mapping[str, SiteInfo | Lost]:
        """Ask every node that is not known to be another site's; learn which node is which site.

        Two nodes of one name are both refused; a node that later claims the name of a known site is ignored.

        Args:
            sites: Names of the enrolled sites to ask; None asks all.
            deadline_s: How long to wait, in seconds of wall time; a virtual clock waits for every answer.
        """
        wanted = self._sites if sites is None else self._sites & set(sites)
        for site in wanted:
            self._nodes.pop(site, None)
        known = set(self._nodes.values())
        nodes = [node for node in self._grid.get_node_ids() if node not in known]
        claims: dict[str, list[tuple[int, SiteInfo]]] = {}
        failures = []
        for message, _ in self._replies([Message(RecordDict(), node, READY) for node in nodes], deadline_s):
            try:
                info = read_site_info(_content(message))
            except ProtocolError as error:
                failures.append(str(error))
                continue
            claims.setdefault(info.site, []).append((message.metadata.src_node_id, info))
        reason = "; ".join(failures) or "no answer"
        return {site: self._enter(site, claims.get(site, []), reason) for site in sorted(wanted)}

    def _enter(self, site: str, claims: Sequence[tuple[int, SiteInfo]], reason: str) -> SiteInfo | Lost:
        """Note the one node that claims to be a site, or say why there is none."""
        if len(claims) != 1:
            return Lost("two nodes claim this name; revoke one of them" if claims else reason)
        self._nodes[site], info = claims[0]
        self._cases[site] = sum(info.cases.values())
        return info

    def ask(self, plans: Mapping[str, RoundPlan], vectors: Vectors, deadline_s: float) -> Iterator[Reply]:
        """Send plans, the largest site first so that workers finish together, and yield replies."""
        if plans and not self._nodes:
            self.ready()
        record, started = array_record(vectors), time.monotonic()
        sent = sum(values.nbytes for values in vectors.values())
        known = [site for site in plans if site in self._nodes]
        order = sorted(known, key=lambda site: (-self._cases[site], site))
        nodes = {self._nodes[site]: site for site in order}
        messages = [
            Message(
                plan_content(plans[site], record),
                self._nodes[site],
                MessageType.TRAIN,
                group_id=str(plans[site].round),
            )
            for site in order
        ]
        del record
        missing = set(order)
        for message, seconds in self._replies(messages, deadline_s):
            site = nodes.get(message.metadata.src_node_id)
            if site in missing:
                missing.discard(site)
                yield self._reply(site, message, seconds, deadline_s, sent)
        is_late = time.monotonic() - started > deadline_s and not self._virtual_clock
        reason = f"no answer within {deadline_s:g} s" if is_late else "the plan could not be sent to it"
        for site in sorted(missing):
            yield Reply(site, Lost(reason, is_late=is_late), deadline_s if is_late else 0.0, sent)
        for site in sorted(set(plans) - set(known)):
            yield Reply(site, Lost("it was not ready"))

    def _replies(self, messages: list[Message], deadline_s: float) -> Iterator[tuple[Message, float]]:
        """Push messages and yield one reply for each, with the seconds until it was here."""
        started = time.monotonic()
        waiting = {identity for identity in self._grid.push_messages(messages) if identity}
        messages.clear()
        while waiting:
            arrived = False
            pulled = list(self._grid.pull_messages(list(waiting)))
            # Taken here: what is done with one reply must not make the next one late.
            seconds = time.monotonic() - started
            while pulled:
                message = pulled.pop(0)
                arrived = True
                if message.metadata.reply_to_message_id not in waiting:
                    continue
                waiting.discard(message.metadata.reply_to_message_id)
                yield message, seconds
                del message
            if not self._virtual_clock and time.monotonic() - started > deadline_s:
                return
            if not arrived:
                time.sleep(_POLL_S)

    def _reply(self, site: str, message: Message, seconds: float, deadline_s: float, sent: int) -> Reply:
        if message.has_error():
            # No delay is known on the virtual clock; wall time must not enter a simulation's log.
            return Reply(site, Lost(str(message.error.reason)), 0.0 if self._virtual_clock else seconds, sent)
        content = message.content
        try:
            delay = _virtual_delay(content) if self._virtual_clock else seconds
        except (KeyError, ValueError):
            return Reply(site, Lost("the reply's clock cannot be read", is_garbage=True), 0.0, sent)
        if delay > deadline_s:
            reason = f"answered after {delay:g} s; the deadline is {deadline_s:g} s"
            return Reply(site, Lost(reason, is_late=True), delay, sent)
        try:
            answer = read_answer(content)
        except ProtocolError as error:
            return Reply(site, Lost(str(error), is_garbage=True), delay, sent)
        return Reply(site, answer, delay, sent, _size(answer))


def _content(message: Message) -> RecordDict:
    if message.has_error():
        raise ProtocolError(str(message.error.reason))
    content: RecordDict = message.content
    return content


def _size(answer: Update | Refusal) -> int:
    """Return the bytes of an answer's arrays."""
    if isinstance(answer, Refusal):
        return 0
    vectors = sum(vector.nbytes for vector in answer.vectors.values())
    return vectors + sum(statistics.nbytes for statistics in answer.statistics.values())


def _virtual_delay(content: RecordDict) -> float:
    clock = records_of(content, ConfigRecord).get("clock")
    return float(str(clock["delay_s"])) if clock is not None else 0.0


def serve(grid: Grid, folder: Path, observe: Observer | None = None) -> None:
    """Run the study of a run folder over a grid, and write how it ended.

    A missing quorum ends the run with a reason, not with an exception: the checkpoint stays usable.
    """
    settings = RunSettings.load(folder)
    contract = Contract.load(folder / settings.contract)
    store = CheckpointStore(folder / "checkpoints")
    channel = GridChannel(grid, settings.sites, virtual_clock=settings.virtual_clock)
    log = EventLog(folder / "rounds.jsonl", observe)
    run = StudyRun(contract, channel, store=store, log=log)
    try:
        write_outcome(folder, run.run(), contract.layout)
    except QuorumError as error:
        checkpoint = store.latest(contract.study_hash) or first_checkpoint(contract)
        write_outcome(folder, checkpoint, contract.layout, stopped=str(error))


def make_server_app(observe: Observer | None = None) -> ServerApp:
    """Return the coordinator's Flower app; ``run-directory`` in the run's configuration names its folder."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = Path(str(context.run_config["run-directory"]))
        if (folder / SEAL).exists():
            # Imported late: simulations have neither keys nor sites to enrol.
            from fedcad.server.deployment import serve_study

            serve_study(grid, StudyFolder(folder))
        else:
            serve(grid, folder, observe)

    return server_app


app = make_server_app()
