"""What the coordinator keeps after each round, so that a killed run goes on with the same bits.

A checkpoint is two files: ``round-0007.safetensors`` with every tensor and ``round-0007.json`` with the rest
and the tensors' hash. The JSON file is written last and atomically: it is the commit. The two newest stay.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from fedcad.server.spill import Spill
from fedcad.server.tensor_file import write_tensors
from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import CheckpointError

_KEPT = 2
_NAME = re.compile(r"round-\d{4,}(-final)?")


Losses = Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class Selection:
    """The version whose parameters are tested in the end.

    Attributes:
        version: 0 for the initial parameters, r for those after round r.
        model: Its parameters, float32, flat.
        losses: Site → its mean validation loss and its validation cases; empty before any validation.
    """

    version: int
    model: Tensor
    losses: Losses = field(default_factory=dict)

    def is_beaten_by(self, losses: Losses) -> bool:
        """Whether a later version is better: a lower mean loss over the cases of the sites that saw both.

        Sites that saw only one of the two cannot compare them. Where those that saw both hold less than half
        of the chosen version's cases, nothing is decided, so that no small site alone takes the choice over.
        """
        if not self.losses:
            return True
        common = sorted(set(self.losses) & set(losses))
        if 2 * _cases(self.losses, common) < _cases(self.losses, self.losses):
            return False
        return _mean_loss(losses, common) < _mean_loss(self.losses, common)


@dataclass(frozen=True)
class Checkpoint:
    """The coordinator's state after a closed round.

    Attributes:
        study_hash: Contract that it belongs to.
        round: Last closed round; 0 before the first.
        state: The algorithm's state.
        selection: Best version so far.
        last_counted: For each site, the last round in which its update counted.
        events: Number of lines of the event log that belong to closed rounds.
        is_finished: True once the last version has been validated.
    """

    study_hash: str
    round: int
    state: State
    selection: Selection
    last_counted: dict[str, int] = field(default_factory=dict)
    events: int = 0
    is_finished: bool = False


class CheckpointStore:
    """Checkpoints of one run in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made if absent."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whole, then remove all but the two newest."""
        name = f"round-{checkpoint.round:04d}{'-final' if checkpoint.is_finished else ''}"
        tensors = {f"state/{key}": tensor for key, tensor in checkpoint.state.items()}
        tensors["selected/model"] = checkpoint.selection.model
        plain = _to_plain(checkpoint, write_tensors(self._folder / f"{name}.safetensors", tensors))
        text = json.dumps(plain | {"sha256": hash_of(plain)}, indent=1)
        write_bytes(self._folder / f"{name}.json", text.encode())
        self._remove_old()

    def latest(self, study_hash: str) -> Checkpoint | None:
        """Return the newest checkpoint, or None where there is none.

        Raises:
            CheckpointError: It is damaged or belongs to another study.
        """
        names = self._names()
        return self._read(names[-1], study_hash) if names else None

    def spill(self) -> Spill:
        """Return an empty place for the single updates of a round."""
        return Spill(self._folder / "updates")

    def _names(self) -> list[str]:
        """Names of whole checkpoints, oldest first; a finished one counts as newer than its round."""
        found = (path.stem for path in self._folder.glob("round-*.json") if _NAME.fullmatch(path.stem))
        return sorted(found, key=lambda name: (int(name.split("-")[1]), name))

    def _read(self, name: str, study_hash: str) -> Checkpoint:
        path = self._folder / f"{name}.json"
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain.pop("sha256") != hash_of(plain):
                raise CheckpointError(f"{path}: the file is damaged; remove it to go on from the one before")
            content = path.with_suffix(".safetensors").read_bytes()
            if hashlib.sha256(content).hexdigest() != plain["tensors_sha256"]:
                raise CheckpointError(f"{path}: the tensors beside it are not the ones that were saved")
            checkpoint = _from_plain(plain, load_tensors(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
        if checkpoint.study_hash != study_hash:
            raise CheckpointError(
                f"{path}: the checkpoint belongs to another study (got {checkpoint.study_hash[:12]}, "
                f"expected {study_hash[:12]}). The study or the data changed; choose another --out"
            )
        return checkpoint

    def _remove_old(self) -> None:
        for name in self._names()[:-_KEPT]:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
        whole = set(self._names())
        remove_leftovers(self._folder)
        for path in self._folder.glob("round-*.safetensors"):
            if path.stem not in whole:
                path.unlink(missing_ok=True)


def _cases(losses: Losses, sites: Iterable[str]) -> int:
    return sum(losses[site][1] for site in sites)


def _mean_loss(losses: Losses, sites: Sequence[str]) -> float:
    return sum(losses[site][0] * losses[site][1] for site in sites) / max(_cases(losses, sites), 1)


def _to_plain(checkpoint: Checkpoint, tensors_sha256: str) -> dict[str, Any]:
    selection = checkpoint.selection
    return {
        "study_hash": checkpoint.study_hash,
        "round": checkpoint.round,
        "selection": {
            "version": selection.version,
            "losses": {site: list(found) for site, found in selection.losses.items()},
        },
        "last_counted": checkpoint.last_counted,
        "events": checkpoint.events,
        "is_finished": checkpoint.is_finished,
        "tensors_sha256": tensors_sha256,
    }


def _from_plain(plain: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    return Checkpoint(
        study_hash=plain["study_hash"],
        round=int(plain["round"]),
        state=state,
        selection=Selection(
            int(plain["selection"]["version"]),
            tensors["selected/model"],
            {site: (float(loss), int(n)) for site, (loss, n) in plain["selection"]["losses"].items()},
        ),
        last_counted={str(site): int(number) for site, number in plain["last_counted"].items()},
        events=int(plain["events"]),
        is_finished=bool(plain["is_finished"]),
    )
