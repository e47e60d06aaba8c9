"""The life of a study: rounds until the last one is closed, then the last validation.

A round: plan → broadcast → add each update as it arrives → quorum → apply → checkpoint. One message validates
the incoming parameters and then trains, so that version r is validated during round r + 1.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcad.server.aggregation import Aggregator
from fedcad.server.channel import Channel, Lost, Reply
from fedcad.server.checkpoint import Checkpoint, CheckpointStore, Selection
from fedcad.server.event_log import EventLog
from fedcad.server.participation import Participation, Status
from fedcad.server.reply_checks import check_update
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import InvalidUpdate, ProtocolError, QuorumError
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, Vectors, Work
from fedcad.shared.metrics.registry import statistics_for


@dataclass(frozen=True)
class Cohort:
    """The sites of a run.

    Attributes:
        sites: Those that are ready and have training cases, by name.
        absent: Those that are enrolled but not ready, with the reason.
    """

    sites: Mapping[str, SiteInfo]
    absent: tuple[Participation, ...]

    @classmethod
    def gather(cls, channel: Channel) -> "Cohort":
        """Ask every enrolled site."""
        answers = channel.ready()
        ready = {name: info for name, info in answers.items() if isinstance(info, SiteInfo)}
        absent = tuple(
            Participation(name, Status.LOST, f"not ready: {info.reason}")
            for name, info in sorted(answers.items())
            if isinstance(info, Lost)
        )
        return cls({name: ready[name] for name in sorted(ready) if ready[name].cases.get("train", 0)}, absent)


@dataclass
class Collected:
    """What one round's replies add up to."""

    aggregator: Aggregator
    participation: list[Participation]
    validation: dict[str, NDArray[np.int64]]
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def counted(self) -> list[str]:
        """Names of the sites whose update is in the sum."""
        return [part.site for part in self.participation if part.status is Status.COUNTED]


class StudyRun:
    """One run of one study over one channel."""

    def __init__(
        self, contract: Contract, channel: Channel, *, store: CheckpointStore, log: EventLog
    ) -> None:
        """Bind the parts together; nothing happens before :meth:`run`."""
        self._contract = contract
        self._study = contract.study
        self._channel = channel
        self._store = store
        self._log = log
        self._algorithm = algorithm_for(contract.study.algorithm)
        self._statistics = statistics_for(contract.study)

    def run(self) -> Checkpoint:
        """Run, or go on after the newest checkpoint, to the end.

        Raises:
            QuorumError: A round had fewer updates than the quorum; the last checkpoint stays usable.
            CheckpointError: The folder's checkpoint is damaged or of another study.
        """
        checkpoint = self._store.latest(self._contract.study_hash) or self.first()
        self._log.truncate(checkpoint.events)
        if checkpoint.is_finished:
            return checkpoint
        cohort = Cohort.gather(self._channel)
        while checkpoint.round < self._study.rounds:
            checkpoint = self._round(checkpoint, cohort)
            self._store.save(checkpoint)
        checkpoint = self._finish(checkpoint, cohort)
        self._store.save(checkpoint)
        return checkpoint

    def first(self) -> Checkpoint:
        """Return the state before the first round."""
        state = self._algorithm.init_server(self._contract.initial)
        selection = Selection(0, 0, None, state["model"])
        return Checkpoint(self._contract.study_hash, 0, state, selection)

    def _round(self, checkpoint: Checkpoint, cohort: Cohort) -> Checkpoint:
        """Run one round and return the checkpoint after it."""
        number, started = checkpoint.round + 1, time.monotonic()
        self._log.show({"event": "started", "round": number, "sites": list(cohort.sites)})
        work: tuple[Work, ...] = ("validate", "train") if self._validates else ("train",)
        collected = self._collect(checkpoint, cohort, number, work)
        collected.participation += cohort.absent
        self._require_quorum(number, collected)
        state = self._algorithm.apply(checkpoint.state, collected.aggregator.close())
        selection, lines = self._select(checkpoint, collected.validation, cohort)
        self._log.append(_round_event(number, collected, time.monotonic() - started))
        return replace(
            checkpoint,
            round=number,
            state=state,
            selection=selection,
            last_counted=checkpoint.last_counted | dict.fromkeys(collected.counted, number),
            events=checkpoint.events + lines + 1,
        )

    def _finish(self, checkpoint: Checkpoint, cohort: Cohort) -> Checkpoint:
        """Validate the last version, or take it unseen where the study selects the last round."""
        selection, lines = checkpoint.selection, 0
        if self._validates:
            collected = self._collect(checkpoint, cohort, 0, ("validate",))
            selection, lines = self._select(checkpoint, collected.validation, cohort)
        if self._study.evaluation.selection == "last_round":
            selection = replace(selection, version=checkpoint.round, model=checkpoint.state["model"])
        return replace(checkpoint, selection=selection, events=checkpoint.events + lines, is_finished=True)

    @property
    def _validates(self) -> bool:
        return self._study.data.split.validation > 0

    def _collect(
        self, checkpoint: Checkpoint, cohort: Cohort, number: int, work: tuple[Work, ...]
    ) -> Collected:
        """Send plans to the cohort and add up what comes back, as it comes back."""
        vectors = {k: v.numpy() for k, v in self._algorithm.broadcast(checkpoint.state).items()}
        plans = self._plans(checkpoint, cohort, number, work, vectors)
        collected = Collected(Aggregator(), [], {})
        if "train" in work:
            spill = self._store.spill() if self._algorithm.needs_individual_updates else None
            collected.aggregator.begin({"model": self._contract.layout.size}, spill=spill)
        for reply in self._channel.ask(plans, vectors, self._study.participation.deadline_s):
            part = self._take(reply, plans[reply.site], cohort, collected)
            collected.participation.append(part)
            self._log.show({"event": "answered", "round": number, **part.to_plain()})
        collected.participation.sort(key=lambda part: part.site)
        return collected

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
                round=number,
                work=work,
                broadcast_hash=broadcast_hash,
                last_counted_round=checkpoint.last_counted.get(site, 0),
            )
            for site in cohort.sites
        }

    def _take(self, reply: Reply, plan: RoundPlan, cohort: Cohort, collected: Collected) -> Participation:
        """Use one reply, or say why it cannot be used."""
        collected.sent_bytes += reply.sent_bytes
        collected.received_bytes += reply.received_bytes
        site, answer, delay = reply.site, reply.answer, reply.delay_s
        if isinstance(answer, Lost):
            return Participation(site, _status_of(answer), answer.reason, delay_s=delay)
        if isinstance(answer, Refusal):
            return Participation(site, Status.REFUSED, answer.code, delay_s=delay)
        try:
            weight = self._add(answer, plan, cohort.sites[site], collected)
        except (InvalidUpdate, ProtocolError) as error:
            return Participation(site, Status.REJECTED, str(error), delay_s=delay)
        if "validation" in answer.statistics:
            collected.validation[site] = answer.statistics["validation"][0].copy()
        return Participation(site, Status.COUNTED, weight=weight, delay_s=delay)

    def _add(self, update: Update, plan: RoundPlan, info: SiteInfo, collected: Collected) -> int:
        """Check an update and add it to the running sums; return its weight."""
        check_update(update, plan=plan, site=info.site, statistics_size=self._statistics.size)
        if "train" not in plan.work:
            return 0
        expected = self._algorithm.weight(info.cases["train"])
        if update.header.weight != expected:
            raise InvalidUpdate(f"got weight {update.header.weight}; the site enrolled with {expected}")
        collected.aggregator.add(update.vectors, weight=expected)
        return expected

    def _require_quorum(self, number: int, collected: Collected) -> None:
        quorum, counted = self._study.participation.quorum, len(collected.counted)
        if counted >= max(quorum, 1):
            return
        missing = "; ".join(
            f"{part.site} {part.status.value} ({part.reason})"
            for part in collected.participation
            if part.status is not Status.COUNTED
        )
        reason = f"round {number} had {counted} usable updates; the quorum is {quorum}. Missing: {missing}"
        self._log.append(_round_event(number, collected, 0.0) | {"event": "stopped", "reason": reason})
        raise QuorumError(f"{reason}. Remedy the cause and resume: round {number - 1} is saved")

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
        loss, sites = self._statistics.loss(union), len(validation)
        if not checkpoint.selection.is_beaten_by(sites=sites, loss=loss):
            return checkpoint.selection, 1
        return Selection(checkpoint.round, sites, loss, checkpoint.state["model"]), 1

    def _figures(self, statistics: NDArray[np.int64], cases: int) -> dict[str, Any]:
        metrics = self._statistics.metrics(statistics)
        return {"cases": cases, **{name: metric.value for name, metric in metrics.items()}}


def _status_of(lost: Lost) -> Status:
    if lost.is_garbage:
        return Status.REJECTED
    return Status.LATE if lost.is_late else Status.LOST


def _round_event(number: int, collected: Collected, seconds: float) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "attempt": 1,
        "seconds": round(seconds, 4),
        "bytes_sent": collected.sent_bytes,
        "bytes_received": collected.received_bytes,
        "participation": [part.to_plain() for part in collected.participation],
    }
