"""A site's answers, kept until the coordinator's signed word that their round is closed.

Why: whatever is killed or cut off, a site must not answer one question in two ways: the coordinator could
count both, and two answers to one question tell more about the patients than one. So an answer is on the disk
before its first byte leaves, what is sent is that file, and the same plan again gets the same file.

A site answers in the order of (attempt, round): a coordinator that was restored from a backup can ask for
rounds that were closed only in a new, counted attempt.

The folder of a round is also its scratch store: what later stages of a protocol (keys, shares, masks) must
remember of earlier ones, and the checkpoint inside the round, lie there and go with it.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedcad.client.worker_protocol import WorkerMessage, write_message
from fedcad.shared.atomic_files import remove_leftovers, sync_folder, write_atomically, write_bytes
from fedcad.shared.canonical import canonical_json
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import Objection, RoundPlan

SPARE_BYTES = 64 * 2**20
"""Free space that is left to the site's other files."""
_CLOSED = "closed.json"
_ROUND = re.compile(r"round-([0-9]{10})-attempt-[0-9]{10}")


class Outbox:
    """The answers of one study at one site. At most one process uses it at a time.

    Guarantees:
        For each (round, attempt, stage) at most one plan is admitted and at most one answer kept, also over
        kill -9 and power cuts; an answer is there whole or not at all.
    """

    def __init__(self, folder: Path, study_hash: str) -> None:
        """Keep a study's answers below a folder of the site's; folders are made when there is something."""
        self._folder = folder / study_hash[:32]

    def admit(self, plan: RoundPlan) -> Objection | None:
        """Decide whether a plan may be answered, and remember it as the one of its round, attempt and stage.

        Work outside the rounds is admitted unless a higher attempt has begun, and never stored: it releases
        nothing but statistics, and the same each time. It comes after all rounds, so that it closes those of
        which there are answers. Of an earlier attempt it would take back the site's state and its result.

        Args:
            plan: Verified to come from the coordinator, for this site and this study. It is also the receipt
                for earlier rounds, whose answers are removed.

        Returns:
            Why not: ``closed-round`` where a higher attempt has begun or the round is over in this one,
            ``other-plan`` where another plan was admitted.

        Raises:
            CheckpointError: What the site remembers is damaged.
        """
        attempt, closed = self._close(plan)
        if plan.attempt < attempt or 0 < plan.round <= closed:
            return "closed-round"
        if plan.round == 0:
            return None
        path = self._path(plan, "plan")
        if path.exists():
            return None if path.read_text() == plan.identity else "other-plan"
        scratch = self.scratch(plan)
        remove_leftovers(scratch)
        write_bytes(scratch / path.name, plan.identity.encode())
        return None

    def answer_to(self, plan: RoundPlan) -> Path | None:
        """Return the file with the answer that was kept for an admitted plan, as it was and will be sent."""
        path = self._path(plan, "answer")
        return path if plan.round > 0 and path.exists() else None

    def keep(self, plan: RoundPlan, answer: WorkerMessage) -> Path:
        """Write the answer to an admitted plan, on the disk when this returns; the first one stays.

        Returns:
            The file to send.

        Raises:
            CheckpointError: The plan was not admitted.
            OSError: The disk is full or fails; then no answer is kept.
        """
        claim = self._path(plan, "plan")
        if not claim.exists() or claim.read_text() != plan.identity:
            raise CheckpointError(
                f"an answer to a plan of round {plan.round} that was not admitted cannot be kept"
            )
        path = self._path(plan, "answer")
        if not path.exists():
            write_atomically(path, lambda stream: write_message(stream, answer))
        return path

    def scratch(self, plan: RoundPlan) -> Path:
        """Return the folder of a plan's round and attempt, made if absent; it is removed with its answers."""
        folder = self._path(plan, "plan").parent
        missing = [each for each in (folder, *folder.parents[:2]) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_folder(each.parent)
        return folder

    def require_space(self, answer_bytes: int) -> None:
        """Check before the work begins that an answer can be kept.

        Args:
            answer_bytes: Bytes of the answer and of whatever else the round keeps.

        Raises:
            CheckpointError: The disk has too little room.
        """
        folder = next(each for each in (self._folder, *self._folder.parents) if each.exists())
        free, needed = shutil.disk_usage(folder).free, answer_bytes + SPARE_BYTES
        if free < needed:
            raise CheckpointError(
                f"{folder}: the disk has {free / 1e6:.0f} MB free; this round needs {needed / 1e6:.0f} MB "
                "for its answer. Make room; the coordinator asks again"
            )

    def _close(self, plan: RoundPlan) -> tuple[int, int]:
        """Return attempt and last closed round after what a plan says of them; remove what it closes."""
        before, rounds = self._position(), list(self._rounds())
        if plan.attempt < before[0]:
            return before
        kept = max((number for number, _ in rounds), default=0)
        known = before[1] if plan.attempt == before[0] else 0
        closed = max(known, plan.last_counted_round, plan.round - 1 if plan.round > 0 else kept)
        after = (plan.attempt, closed)
        if after != before:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder)
            # First what is closed, then the removal: killed in between, nothing is answered anew.
            write_bytes(self._folder / _CLOSED, canonical_json({"attempt": after[0], "round": after[1]}))
        for number, folder in rounds:
            if number <= closed:
                shutil.rmtree(folder)
        return after

    def _position(self) -> tuple[int, int]:
        """Return the newest attempt and the last round that is closed in it."""
        path = self._folder / _CLOSED
        if not path.exists():
            return 1, 0
        try:
            plain = json.loads(path.read_bytes())
            return int(plain["attempt"]), int(plain["round"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: which rounds are closed cannot be read; restore the site's state folder"
            ) from error

    def _rounds(self) -> Iterator[tuple[int, Path]]:
        """Yield round and folder of everything that is kept, of all attempts."""
        for folder in self._folder.glob("round-*"):
            named = _ROUND.fullmatch(folder.name)
            if named:
                yield int(named[1]), folder

    def _path(self, plan: RoundPlan, kind: str) -> Path:
        name = f"round-{plan.round:010d}-attempt-{plan.attempt:010d}"
        return self._folder / name / f"{plan.stage}.{kind}"
