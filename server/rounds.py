"""The life of a study: rounds until the last one is closed, then the last validation.

A round: plan → broadcast → add each update as it arrives → quorum → apply → checkpoint. One message validates
the incoming parameters and then trains, so that version r is validated during round r + 1.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcad.server.aggregation import Aggregator
from fedcad.server.attempts import MOST_NEW_ATTEMPTS, OUTDATED
from fedcad.server.channel import Channel, Lost, Reply
from fedcad.server.checkpoint import Checkpoint, CheckpointStore, Selection
from fedcad.server.cohort import Cohort
from fedcad.server.conduct import AtOnce, Conduct
from fedcad.server.event_log import EventLog
from fedcad.server.participation import Participation, Status, shortened
from fedcad.server.reply_checks import check_refusal, check_update
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import InvalidUpdate, ProtocolError, QuorumError
from fedcad.shared.exchange import rounded
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, Vectors, Work
from fedcad.shared.metrics.registry import statistics_for

REMEDY = ". Remedy the cause and resume: everything before is saved"


@dataclass
class Collected:
    """What one round's replies add up to."""

    aggregator: Aggregator
    participation: list[Participation]
    validation: dict[str, NDArray[np.int64]]
    sent_bytes: int = 0
    received_bytes: int = 0
    attempt: int = 1

    @property
    def outdated(self) -> list[str]:
        """Names of the sites that say that they have closed the attempt to which the plans belong."""
        refused = [part for part in self.participation if part.status is Status.REFUSED]
        return [part.site for part in refused if part.reason in OUTDATED]

    @property
    def counted(self) -> list[str]:
        """Names of the sites whose update is in the sum."""
        return [part.site for part in self.participation if part.status is Status.COUNTED]


class StudyRun:
    """One run of one study over one channel."""

    def __init__(
        self,
        contract: Contract,
        channel: Channel,
        *,
        store: CheckpointStore,
        log: EventLog,
        conduct: Conduct | None = None,
    ) -> None:
        """Bind the parts together; nothing happens before :meth:`run`.

        Args:
            contract: The study.
            channel: To its sites.
            store: Of its checkpoints.
            log: Of its rounds.
            conduct: Between rounds; at once where absent.
        """
        self._contract = contract
        self._study = contract.study
        self._channel = channel
        self._store = store
        self._log = log
        self._conduct = conduct or AtOnce()
        self._attempts = store.attempts()
        self._begun_for: Counter[str] = Counter()
        self._algorithm = algorithm_for(contract.study.algorithm)
        self._statistics = statistics_for(contract.study)

    def run(self) -> Checkpoint:
        """Run, or go on after the newest checkpoint, to the end.

        Raises:
            QuorumError: A round had fewer updates than the quorum; the last checkpoint stays usable.
            CheckpointError: The folder's checkpoint or log is damaged or of another study.
        """
        checkpoint = self._store.latest(self._contract.study_hash) or first_checkpoint(self._contract)
        self._log.truncate(checkpoint.events)
        cohort: Cohort | None = None
        while not checkpoint.is_finished and self._conduct.goes_on():
            cohort = self._gather(cohort)
            try:
                checkpoint, cohort = self._advance(checkpoint, cohort)
            except QuorumError as error:
                if not self._conduct.waits(str(error).removesuffix(REMEDY), error.missing):
                    raise
                self._log.truncate(checkpoint.events)
                cohort = None
                continue
            self._store.save(checkpoint)
            self._conduct.closed()
        return checkpoint

    def _gather(self, cohort: Cohort | None) -> Cohort:
        if cohort is None:
            return Cohort.gather(self._channel, self._contract.study_hash)
        return cohort.with_late_comers(self._channel, self._contract.study_hash)

    def _advance(self, checkpoint: Checkpoint, cohort: Cohort) -> tuple[Checkpoint, Cohort]:
        """Run the next round, or the last validation."""
        if checkpoint.round < self._study.rounds:
            return self._round(checkpoint, cohort)
        return self._finish(checkpoint, cohort), cohort

    def _round(self, checkpoint: Checkpoint, cohort: Cohort) -> tuple[Checkpoint, Cohort]:
        """Run one round and return the checkpoint after it, and the cohort without those that were lost."""
        number, started = checkpoint.round + 1, time.monotonic()
        self._log.show({"event": "started", "round": number, "sites": list(cohort.sites)})
        work: tuple[Work, ...] = ("validate", "train") if self._validates else ("train",)
        collected = self._collect(checkpoint, cohort, number, work)
        self._require_quorum(f"round {number}", collected, _round_event(number, collected, 0.0))
        state = self._algorithm.apply(checkpoint.state, collected.aggregator.close())
        selection, lines = self._select(checkpoint, collected.validation, cohort)
        if self._takes_last or not selection.losses:
            selection = Selection(number, state["model"])
        self._log.append(_round_event(number, collected, time.monotonic() - started))
        after = replace(
            checkpoint,
            round=number,
            state=state,
            selection=selection,
            last_counted=checkpoint.last_counted | dict.fromkeys(collected.counted, number),
            events=checkpoint.events + lines + 1,
        )
        return after, cohort.without_lost(collected.participation)

    def _finish(self, checkpoint: Checkpoint, cohort: Cohort) -> Checkpoint:
        """Validate the last version; a study without validation patients takes it unseen."""
        selection, lines = checkpoint.selection, 0
        if self._validates:
            collected = self._collect(checkpoint, cohort, 0, ("validate",))
            event = _round_event(0, collected, 0.0) | {"event": "last-validation"}
            self._require_quorum("the last validation", collected, event)
            selection, lines = self._select(checkpoint, collected.validation, cohort)
            self._log.append(event)
            lines += 1
        return replace(checkpoint, selection=selection, events=checkpoint.events + lines, is_finished=True)

    @property
    def _takes_last(self) -> bool:
        return self._study.evaluation.selection == "last_round"

    @property
    def _validates(self) -> bool:
        return self._study.data.split.validation > 0

    def _collect(
        self, checkpoint: Checkpoint, cohort: Cohort, number: int, work: tuple[Work, ...]
    ) -> Collected:
        """Try a round, in a new attempt where sites have closed the one that it belongs to.

        Every site trains anew in each attempt, so none is believed more often than a restored coordinator
        can need: one that always says so would make the others release several updates a round.
        """
        while True:
            collected = self._try(checkpoint, cohort, number, work)
            believed = [site for site in collected.outdated if self._begun_for[site] < MOST_NEW_ATTEMPTS]
            if not believed:
                return collected
            self._begun_for.update(believed)
            self._attempts.begin_another()

    def _try(self, checkpoint: Checkpoint, cohort: Cohort, number: int, work: tuple[Work, ...]) -> Collected:
        """Send plans to the cohort and add up what comes back, as it comes back.

        Participation then names every enrolled site once, whatever the channel yields.
        """
        broadcast = _read_only(self._algorithm.broadcast(checkpoint.state))
        vectors = rounded(broadcast, self._study.exchange.precision)
        plans = self._plans(checkpoint, cohort, number, work, vectors)
        collected = Collected(Aggregator(), [], {})
        if "train" in work:
            self._open_sums(collected.aggregator, cohort)
        collected.attempt = self._attempts.number
        silent = set(plans)
        for reply in self._channel.ask(plans, vectors, self._study.participation.deadline_s):
            if reply.site not in silent:
                continue  # Not asked, or a second answer: the first one is in the sum.
            silent.discard(reply.site)
            part = self._take(reply, plans[reply.site], cohort, collected)
            collected.participation.append(part)
            self._log.show({"event": "answered", "round": number, **part.to_plain()})
            del reply  # The next update is taken while nothing holds this one.
        collected.participation += [Participation(site, Status.LOST, "no answer") for site in silent]
        collected.participation += cohort.absent
        collected.participation.sort(key=lambda part: part.site)
        return collected

    def _open_sums(self, aggregator: Aggregator, cohort: Cohort) -> None:
        spill = self._store.spill() if self._algorithm.needs_individual_updates else None
        sizes = self._algorithm.sizes(self._contract.layout)
        weights = [self._algorithm.weights(info.cases["train"]) for info in cohort.sites.values()]
        totals = {name: sum(each[name] for each in weights) for name in sizes}
        aggregator.begin(sizes, totals, enrolled=cohort.enrolled, spill=spill)

    def _plans(
        self,
        checkpoint: Checkpoint,
        cohort: Cohort,
        number: int,
        work: tuple[Work, ...],
        vectors: Vectors,
    ) -> dict[str, RoundPlan]:
        broadcast_hash = hash_of_vectors(dict(vectors))
        return {
            site: RoundPlan(
                study_hash=self._contract.study_hash,
                site=site,
                round=number,
                attempt=self._attempts.number,
                work=work,
                broadcast_hash=broadcast_hash,
                last_counted_round=checkpoint.last_counted.get(site, 0),
                selected_round=checkpoint.selection.version,
            )
            for site in cohort.sites
        }

    def _take(self, reply: Reply, plan: RoundPlan, cohort: Cohort, collected: Collected) -> Participation:
        """Use one reply, or say why it cannot be used."""
        collected.sent_bytes += reply.sent_bytes
        collected.received_bytes += reply.received_bytes
        site, answer, delay = reply.site, reply.answer, reply.delay_s
        if isinstance(answer, Lost):
            return Participation(site, _status_of(answer), shortened(answer.reason), delay_s=delay)
        try:
            if isinstance(answer, Refusal):
                check_refusal(answer, plan=plan, site=site)
                return Participation(site, Status.REFUSED, answer.code, delay_s=delay)
            weight = self._add(answer, plan, cohort.sites[site], collected)
        except (InvalidUpdate, ProtocolError) as error:
            return Participation(site, Status.REJECTED, shortened(str(error)), delay_s=delay)
        if "validation" in answer.statistics:
            collected.validation[site] = answer.statistics["validation"][0].copy()
        return Participation(site, Status.COUNTED, weight=weight, delay_s=delay)

    def _add(self, update: Update, plan: RoundPlan, info: SiteInfo, collected: Collected) -> int:
        """Check an update and add it to the running sums; return its model's weight."""
        check_update(update, plan=plan, info=info, family=self._statistics)
        if "train" not in plan.work:
            return 0
        expected = self._algorithm.weights(info.cases["train"])
        if update.header.weights != expected:
            raise InvalidUpdate(
                f"got weights {update.header.weights}; the site's enrolment gives {dict(expected)}"
            )
        collected.aggregator.add(update.vectors, weights=expected)
        return expected["model"]

    def _require_quorum(self, what: str, collected: Collected, event: Mapping[str, Any]) -> None:
        quorum, counted = self._study.participation.quorum, len(collected.counted)
        if counted >= max(quorum, 1):
            return
        others = [part for part in collected.participation if part.status is not Status.COUNTED]
        missing = "; ".join(f"{part.site} {part.status.value} ({part.reason})" for part in others)
        reason = f"{what} had {counted} usable updates; the quorum is {quorum}. Missing: {missing}"
        is_round = event["event"] == "round"
        self._log.append({**event, "event": "stopped" if is_round else event["event"], "reason": reason})
        raise QuorumError(f"{reason}{REMEDY}", tuple(part.site for part in others))

    def _select(
        self, checkpoint: Checkpoint, validation: Mapping[str, NDArray[np.int64]], cohort: Cohort
    ) -> tuple[Selection, int]:
        """Log the validation of the checkpoint's version and keep that version if it is the best so far.

        Returns:
            The selection and the number of lines logged.
        """
        if not validation:
            return checkpoint.selection, 0
        cases = {site: cohort.sites[site].cases["validation"] for site in sorted(validation)}
        union: NDArray[np.int64] = np.sum(list(validation.values()), axis=0, dtype=np.int64)
        self._log.append(
            {
                "event": "validation",
                "version": checkpoint.round,
                "sites": {site: self._figures(validation[site], count) for site, count in cases.items()},
                "union": self._figures(union, sum(cases.values())),
            }
        )
        losses = {site: (self._statistics.loss(validation[site]), count) for site, count in cases.items()}
        if not checkpoint.selection.is_beaten_by(losses):
            return checkpoint.selection, 1
        return Selection(checkpoint.round, checkpoint.state["model"], losses), 1

    def _figures(self, statistics: NDArray[np.int64], cases: int) -> dict[str, Any]:
        metrics = self._statistics.metrics(statistics)
        return {"cases": cases, **{name: metric.value for name, metric in metrics.items()}}


def first_checkpoint(contract: Contract) -> Checkpoint:
    """Return a study's state before its first round."""
    state = algorithm_for(contract.study.algorithm).init_server(contract.initial, contract.layout)
    contract.release()
    return Checkpoint(contract.study_hash, 0, state, Selection(0, state["model"]))


def _read_only(vectors: Mapping[str, Tensor]) -> Vectors:
    """Return arrays that share the vectors' memory: no channel within this process can change our state."""
    arrays = {name: vector.numpy() for name, vector in vectors.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _status_of(lost: Lost) -> Status:
    if lost.is_garbage:
        return Status.REJECTED
    return Status.LATE if lost.is_late else Status.LOST


def _round_event(number: int, collected: Collected, seconds: float) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "attempt": collected.attempt,
        "seconds": round(seconds, 4),
        "bytes_sent": collected.sent_bytes,
        "bytes_received": collected.received_bytes,
        "participation": [part.to_plain() for part in collected.participation],
    }
