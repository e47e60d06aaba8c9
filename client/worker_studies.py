"""The studies of a site in its training worker: contracts checked, networks kept warm, plans answered.

Nothing is done for a message before the coordinator's signature, its contract and its address are checked;
every answer is signed. An answer to a round leaves as a file of the outbox, never from memory.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedcad.client.archive.site_data import open_archive
from fedcad.client.device import open_device, shortage
from fedcad.client.node import Node
from fedcad.client.outbox import Outbox
from fedcad.client.results import keep_result
from fedcad.client.round_checkpoint import RoundCheckpoint, checkpointed
from fedcad.client.workbench import Workbench
from fedcad.client.worker_protocol import Arrays, WorkerMessage
from fedcad.shared.atomic_files import sync_folder, write_bytes
from fedcad.shared.canonical import hash_of, hash_of_vectors
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.contract import Terms
from fedcad.shared.envelope import ANSWER, PLAN, Hashes, ready_purpose, sign_texts, verify_texts
from fedcad.shared.errors import IdentityError, ProtocolError
from fedcad.shared.exchange import DTYPES
from fedcad.shared.messages import Objection, Refusal, RoundPlan, Update, decode, encode
from fedcad.shared.seal import verify_seal
from fedcad.shared.signing import PublicKey, SigningKey
from fedcad.shared.version import __version__

WARM_STUDIES = 2
_LONGEST_QUESTION = 100
_CONTRACT, _SEAL = "contract.json", "seal.json"
_LOG = logging.getLogger("fedcad.client")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Keys:
    """Whom a site is, and whom it trusts.

    Attributes:
        own: With which the site signs its answers.
        coordinator: With which contracts and plans must be signed.
    """

    own: SigningKey
    coordinator: PublicKey


@dataclass(frozen=True)
class Interruption:
    """How work may be interrupted.

    Attributes:
        checkpoint_s: Seconds between checkpoints inside a round.
        is_stopping: Whether this process was asked to stop.
    """

    checkpoint_s: float = 60.0
    is_stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class _Study:
    """One study that is warm."""

    terms: Terms
    bench: Workbench
    node: Node
    outbox: Outbox


class Studies:
    """All studies of one site; at most two are warm."""

    def __init__(
        self,
        site: SiteConfig,
        folder: Path,
        keys: Keys,
        *,
        interruption: Interruption,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Open nothing yet.

        Args:
            site: The hospital's own file.
            folder: Folder that its paths are relative to.
            keys: The site's and the coordinator's keys.
            interruption: How often work is saved, and whether it must stop.
            now: Clock for the end of contracts.

        Raises:
            ConfigError: The site's device is not there, or does not work.
        """
        self._site = site
        self._folder = folder
        self._state = folder / site.state
        self._keys = keys
        self._interruption = interruption
        self._now = now
        self._device = open_device(site.device)
        self._warm: OrderedDict[str, _Study] = OrderedDict()

    def answer(self, message: WorkerMessage) -> WorkerMessage | Path:
        """Answer one message of the coordinator, or return the file with the answer.

        Raises:
            ProtocolError: The message is not one.
            StopRequested: This process was asked to stop; the work goes on with the same message.
            DeviceMemoryError: The GPU's memory does not suffice; nothing of this process is left in it.
            FedCADError: The site cannot do it; its text is for the site alone.
        """
        answers = {"ready": self._ready, "train": self._train}
        if message.kind not in answers:
            raise ProtocolError(f"the worker answers no message of kind {message.kind!r}")
        try:
            return answers[message.kind](message)
        except torch.OutOfMemoryError as error:
            # Networks that are warm take memory too; the next message builds them anew.
            self._warm.clear()
            raise shortage(error, self._device) from None

    def _ready(self, message: WorkerMessage) -> WorkerMessage:
        """Take a contract, and say what the site has for it."""
        texts = message.texts
        purpose = ready_purpose(texts.get("question", "")[:_LONGEST_QUESTION])
        contract, seal = texts.get("contract", ""), texts.get("seal", "")
        try:
            verify_texts(texts, PLAN, self._keys.coordinator)
            terms = self._verify(contract, seal)
        except IdentityError as error:
            _LOG.error("a contract was refused: %s", error)
            refusal = Refusal(plan=hash_of(dict(texts)), site=self._site.name, code="not-trusted")
            return self._signed({"refusal": encode(refusal)}, purpose)
        self._remember(terms.study_hash, contract, seal)
        info = self._open(terms).node.info()
        return self._signed({"siteinfo": encode(info), "version": __version__}, purpose)

    def _train(self, message: WorkerMessage) -> WorkerMessage | Path:
        """Answer a plan, or refuse it."""
        plan = decode(RoundPlan, message.texts.get("plan"))
        try:
            verify_texts(message.texts, PLAN, self._keys.coordinator)
            if plan.site != self._site.name:
                return self._refuse(plan, "wrong-site")
            study = self._find(plan.study_hash)
        except IdentityError as error:
            _LOG.error("a plan was refused: %s", error)
            return self._refuse(plan, "not-trusted")
        if study is None:
            return self._refuse(plan, "wrong-study")
        objection = study.outbox.admit(plan)
        if objection is not None:
            return self._refuse(plan, objection)
        kept = study.outbox.answer_to(plan)
        if kept is not None:
            _LOG.info("round %d: the answer is sent again as it was", plan.round)
            return kept
        return self._work(study, plan, message)

    def _work(self, study: _Study, plan: RoundPlan, asked: WorkerMessage) -> WorkerMessage | Path:
        """Do what an admitted plan asks; the answer to a round is on the disk when this returns."""
        started, checkpoint, broadcast = time.monotonic(), None, _vectors(asked)
        if plan.round == 1 and not _begins_as_agreed(study.terms, broadcast):
            _LOG.error("round 1 came with other initial parameters than the contract's")
            return self._refuse(plan, "wrong-broadcast")
        if plan.round > 0:
            study.outbox.require_space(_needed_bytes(study))
            checkpoint = RoundCheckpoint(
                study.outbox.scratch(plan) / f"{plan.identity}.training",
                interval_s=self._interruption.checkpoint_s,
                is_stopping=self._interruption.is_stopping,
            )
        with checkpointed(checkpoint):
            answer = study.node.answer(plan, broadcast, hash_of_vectors(broadcast))
        if isinstance(answer, Refusal):
            return self._refuse(plan, answer.code)
        if plan.work == ("test",):
            keep_result(self._state, study.terms, asked.texts, broadcast=broadcast, answer=answer)
        message = self._packed(answer, study.terms)
        _LOG.info("round %d: %s in %.1f s", plan.round, ", ".join(plan.work), time.monotonic() - started)
        if checkpoint is None:
            return message
        # The site's state is pending already; the answer comes after it, so that it never stands alone.
        kept = study.outbox.keep(plan, message)
        checkpoint.remove()
        return kept

    def _find(self, study_hash: str) -> _Study | None:
        """Return a study whose contract was taken and still holds; None where there is none."""
        folder = self._state / "studies" / study_hash
        if not (folder / _SEAL).exists():
            return None
        terms = self._verify((folder / _CONTRACT).read_text(), (folder / _SEAL).read_text())
        return self._open(terms) if terms.study_hash == study_hash else None

    def _verify(self, contract: str, seal: str) -> Terms:
        return verify_seal(contract, seal, coordinator=self._keys.coordinator, now=self._now())

    def _remember(self, study_hash: str, contract: str, seal: str) -> None:
        """Keep contract and seal, the seal last: with it a study counts as taken."""
        folder = self._state / "studies" / study_hash
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        for name, text in ((_CONTRACT, contract), (_SEAL, seal)):
            path = folder / name
            if not path.exists() or path.read_bytes() != text.encode():
                write_bytes(path, text.encode())

    def _open(self, terms: Terms) -> _Study:
        """Return a study with its networks built and its archive read; the one unused longest makes room."""
        study = self._warm.get(terms.study_hash)
        if study is None:
            while len(self._warm) >= WARM_STUDIES:
                self._warm.popitem(last=False)
            bench = Workbench(terms, device=self._device)
            data = open_archive(self._site, self._folder, terms.study)
            node = Node(self._site.name, data, bench, state=self._state)
            study = _Study(terms, bench, node, Outbox(self._state / "outbox", terms.study_hash))
            self._warm[terms.study_hash] = study
            _LOG.info("study %s is open", terms.study.name)
        self._warm.move_to_end(terms.study_hash)
        return study

    def _refuse(self, plan: RoundPlan, code: Objection) -> WorkerMessage:
        _LOG.warning("round %d, attempt %d: refused: %s", plan.round, plan.attempt, code)
        refusal = Refusal(plan=plan.identity, site=self._site.name, code=code)
        return self._signed({"refusal": encode(refusal)}, ANSWER)

    def _packed(self, update: Update, terms: Terms) -> WorkerMessage:
        """Return a signed update, its vectors in the study's precision."""
        dtype = DTYPES[terms.study.exchange.precision]
        vectors = {name: values.astype(dtype, copy=False) for name, values in update.vectors.items()}
        texts = {"header": encode(update.header), "hashes": encode(Hashes.of(update))}
        return self._signed(texts, ANSWER, {"vectors": vectors, "statistics": update.statistics})

    def _signed(self, texts: dict[str, str], purpose: str, arrays: Arrays | None = None) -> WorkerMessage:
        return WorkerMessage("answer", sign_texts(texts, purpose, self._keys.own), arrays or {})


def _vectors(message: WorkerMessage) -> dict[str, NDArray[np.float32]]:
    """Return a plan's broadcast as float32; half precision is exact in it.

    Raises:
        ProtocolError: There is none, or of another type.
    """
    named = message.arrays.get("vectors")
    if named is None or any(values.dtype.kind != "f" for values in named.values()):
        raise ProtocolError("the plan came without vectors of floating-point numbers")
    return {name: values.astype(np.float32, copy=False) for name, values in named.items()}


def _begins_as_agreed(terms: Terms, broadcast: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether the first round's parameters are those whose hash the coordinator signed.

    Half precision rounds them, so that no hash of theirs was agreed.
    """
    model = broadcast.get("model")
    if terms.study.exchange.precision != "float32" or model is None:
        return True
    return hash_of_vectors({"model": model}) == terms.initial_sha256


def _needed_bytes(study: _Study) -> int:
    """Return what a round writes: its answer, and a checkpoint with an optimizer's two moments."""
    sizes = study.bench.algorithm.sizes(study.terms.layout)
    return 4 * sum(sizes.values()) + 4 * 3 * study.terms.layout.size
