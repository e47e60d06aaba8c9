"""One study of a real consortium: from its folder, over a grid, until it has ended or is no longer wanted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from fedcad.server.checkpoint import Checkpoint, CheckpointStore
from fedcad.server.conduct import Patient
from fedcad.server.consortium import Consortium
from fedcad.server.delivery import NAME as DELIVERY
from fedcad.server.delivery import deliver, write_delivery
from fedcad.server.event_log import EventLog
from fedcad.server.final_test import counted_up_to
from fedcad.server.live import LiveState
from fedcad.server.outcome import write_outcome
from fedcad.server.rounds import StudyRun, first_checkpoint
from fedcad.server.site_channel import Member, Question, SiteChannel
from fedcad.server.study_folder import StudyFolder, Wanted
from fedcad.server.study_state import STOPPED_BY_HAND
from fedcad.server.submission import CONTRACT, SEAL
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.contract import Contract
from fedcad.shared.errors import QuorumError
from fedcad.shared.flower_internals.grid import bound_replies
from fedcad.shared.metrics.registry import statistics_for
from fedcad.shared.seal import verify_seal

LOG = "rounds.jsonl"
_SPARE_BYTES = 64 * 2**20


def serve_study(grid: Grid, folder: StudyFolder) -> None:
    """Run, or go on with, a study; end quietly, with everything saved, where it is paused or stopped.

    Raises:
        IdentityError: The contract has ended, or is not the one that was sealed.
        CheckpointError: Another process runs the study, or its folder is damaged.
    """
    consortium = Consortium.load(folder.path.parents[2])
    with folder.hold():
        contract = Contract.load(folder.path / CONTRACT)
        live = LiveState(folder.path / "live.json", rounds=contract.study.rounds)
        try:
            _run(grid, folder, contract, consortium=consortium, live=live)
        finally:
            live.close()


def _run(
    grid: Grid, folder: StudyFolder, contract: Contract, *, consortium: Consortium, live: LiveState
) -> None:
    store = CheckpointStore(folder.path / "checkpoints")
    if not _goes_on(folder):
        _note_stopped(folder, contract, store)
        return
    bound_replies(largest_answer(contract))
    channel = SiteChannel(
        grid,
        partial(members_of, consortium.folder),
        _question(folder, contract, consortium),
        contact=live.contact,
    )
    conduct = Patient(partial(_goes_on, folder), live.waiting, wait_s=contract.study.participation.wait_s)
    log = EventLog(folder.path / LOG, live.observe)
    run = StudyRun(contract, channel, store=store, log=log, conduct=conduct)
    try:
        checkpoint = run.run()
    except QuorumError as error:
        folder.want(Wanted.STOPPED, str(error))
        _note_stopped(folder, contract, store)
        return
    if checkpoint.is_finished:
        _finish(folder, contract, checkpoint, channel=channel, attempt=store.attempts().number)
    else:
        _note_stopped(folder, contract, store)


def _note_stopped(folder: StudyFolder, contract: Contract, store: CheckpointStore) -> None:
    """Write what a stopped study has as its result; one that is only paused has no outcome."""
    wish = folder.wish()
    if wish is None or wish.wanted is not Wanted.STOPPED:
        return
    checkpoint = store.latest(contract.study_hash) or first_checkpoint(contract)
    write_outcome(folder.path, checkpoint, contract.layout, stopped=wish.reason or STOPPED_BY_HAND)


def _finish(
    folder: StudyFolder, contract: Contract, checkpoint: Checkpoint, *, channel: SiteChannel, attempt: int
) -> None:
    """Deliver the model once, then say that the study is complete: killed in between, it delivers again."""
    if not (folder.path / DELIVERY).exists():
        selected = counted_up_to(folder.path / LOG, checkpoint.selection.version)
        model = checkpoint.selection.model
        delivery = deliver(contract, channel, model, selected=selected, attempt=attempt)
        write_delivery(folder.path, delivery)
    write_outcome(folder.path, checkpoint, contract.layout)


def largest_answer(contract: Contract) -> int:
    """Return a bound, in bytes, on what an honest site answers: vectors, statistics and their headers."""
    sizes = algorithm_for(contract.study.algorithm).sizes(contract.layout)
    rows = 2 + contract.study.evaluation.bootstrap_replicates
    return 4 * sum(sizes.values()) + 8 * rows * statistics_for(contract.study).size + _SPARE_BYTES


def members_of(consortium: Path, now: datetime | None = None) -> Mapping[str, Member]:
    """Return the enrolled sites of a consortium as they are now, with what forbids them to take part."""
    enrolled = Consortium.load(consortium).sites(now or datetime.now(UTC))
    return {name: Member(site.signing_key, site.objection) for name, site in enrolled.items()}


def _question(folder: StudyFolder, contract: Contract, consortium: Consortium) -> Question:
    """Return what is sent with every question, after checking what sites will check."""
    key = consortium.signing_key()
    text, seal = contract.terms.text(), (folder.path / SEAL).read_text(encoding="utf-8")
    terms = verify_seal(text, seal, coordinator=key.public, now=datetime.now(UTC))
    return Question(terms, text, seal, key)


def _goes_on(folder: StudyFolder, now: datetime | None = None) -> bool:
    """Whether the next round may start: the study is wanted, and its contract has not ended meanwhile."""
    seal, ends = folder.seal(), None
    if seal is not None:
        ends = seal.expires_at()
    if ends is not None and (now or datetime.now(UTC)).timestamp() >= ends:
        folder.want(Wanted.STOPPED, f"the contract ended at {seal.expires if seal else ''}; amend the study")
    wish = folder.wish()
    return wish is not None and wish.wanted is Wanted.RUNNING
