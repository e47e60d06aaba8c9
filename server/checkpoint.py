"""What the coordinator keeps after each round, so that a killed run goes on with the same bits.

A checkpoint is ``round-0007.json`` and the tensor files that it names, with their hashes:
``round-0007.safetensors`` with the algorithm's state, and the file that holds the selected version's
parameters. Those are, as a rule, the state of the round that made them, so that they are never written twice;
otherwise they lie in ``round-0007-selected.safetensors``, to which later checkpoints refer. The JSON file is
written last and atomically: it is the commit. The two newest stay, with every file that they name.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from fedcad.server.attempts import Attempts
from fedcad.server.spill import Spill
from fedcad.server.tensor_file import write_tensors
from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import CheckpointError

_KEPT = 2
_NAME = re.compile(r"round-\d{4,}(-final)?")
_FILE = re.compile(rf"{_NAME.pattern}(-selected)?")
_PLACES = ("state_file", "selected_file")
_MODEL = "model"
"""Key of a version's parameters, in the algorithm's state and in both kinds of file."""


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


@dataclass(frozen=True)
class _Place:
    """A tensor file: its name without extension, and the SHA-256 of its bytes."""

    file: str
    sha256: str


class CheckpointStore:
    """Checkpoints of one run in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made if absent."""
        self._folder = folder
        self._known: list[tuple[Tensor, _Place]] = []
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whole, then remove all but the two newest.

        The tensors must not change afterwards: what the newest checkpoint holds is not written again.
        """
        name = f"round-{checkpoint.round:04d}{'-final' if checkpoint.is_finished else ''}"
        state = self._write(name, checkpoint.state)
        selected = self._place_of(checkpoint, state) or self._write(
            f"{name}-selected", {_MODEL: checkpoint.selection.model}
        )
        plain = _to_plain(checkpoint, state, selected)
        text = json.dumps(plain | {"sha256": hash_of(plain)}, indent=1)
        write_bytes(self._folder / f"{name}.json", text.encode())
        self._remember(checkpoint, state, selected)
        self._remove_old()

    def latest(self, study_hash: str) -> Checkpoint | None:
        """Return the newest checkpoint, or None where there is none.

        Raises:
            CheckpointError: It is damaged or belongs to another study.
        """
        names = self._names()
        if not names:
            return None
        checkpoint, state, selected = self._read(names[-1], study_hash)
        self._remember(checkpoint, state, selected)
        return checkpoint

    def attempts(self) -> Attempts:
        """Return the number of the present attempt, which outlives every checkpoint.

        Raises:
            CheckpointError: It cannot be read.
        """
        return Attempts(self._folder / "attempt.json")

    def spill(self) -> Spill:
        """Return an empty place for the single updates of a round."""
        return Spill(self._folder / "updates")

    def _names(self) -> list[str]:
        """Names of whole checkpoints, oldest first; a finished one counts as newer than its round."""
        found = (path.stem for path in self._folder.glob("round-*.json") if _NAME.fullmatch(path.stem))
        return sorted(found, key=lambda name: (int(name.split("-")[1]), name))

    def _write(self, file: str, tensors: Mapping[str, Tensor]) -> _Place:
        return _Place(file, write_tensors(self._folder / f"{file}.safetensors", tensors))

    def _place_of(self, checkpoint: Checkpoint, state: _Place) -> _Place | None:
        """Return where the selected version's parameters lie already."""
        known = [(checkpoint.state[_MODEL], state), *self._known]
        return next((place for model, place in known if model is checkpoint.selection.model), None)

    def _remember(self, checkpoint: Checkpoint, state: _Place, selected: _Place) -> None:
        self._known = [(checkpoint.state[_MODEL], state), (checkpoint.selection.model, selected)]

    def _read(self, name: str, study_hash: str) -> tuple[Checkpoint, _Place, _Place]:
        """Return a checkpoint and where its state and its selected version lie."""
        path = self._folder / f"{name}.json"
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain.pop("sha256") != hash_of(plain):
                raise CheckpointError(f"{path}: the file is damaged; remove it to go on from the one before")
            places = _places(plain)
            tensors = {place: self._load(path, place) for place in set(places)}
            checkpoint = _from_plain(plain, tensors[places[0]], tensors[places[1]][_MODEL])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
        if checkpoint.study_hash != study_hash:
            raise CheckpointError(
                f"{path}: the checkpoint belongs to another study (got {checkpoint.study_hash[:12]}, "
                f"expected {study_hash[:12]}). The study or the data changed; choose another --out"
            )
        return checkpoint, *places

    def _load(self, path: Path, place: _Place) -> State:
        content = (self._folder / f"{place.file}.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != place.sha256:
            raise CheckpointError(f"{path}: the tensors in {place.file} are not the ones that were saved")
        return load_tensors(content)

    def _remove_old(self) -> None:
        for name in self._names()[:-_KEPT]:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
        remove_leftovers(self._folder)
        try:
            plains = [json.loads((self._folder / f"{name}.json").read_bytes()) for name in self._names()]
            named = {place.file for plain in plains for place in _places(plain)}
        except (ValueError, KeyError, TypeError):
            return  # A damaged one does not say what it needs; somebody may still mend it.
        for path in self._folder.glob("round-*.safetensors"):
            if _FILE.fullmatch(path.stem) and path.stem not in named:
                path.unlink(missing_ok=True)


def _cases(losses: Losses, sites: Iterable[str]) -> int:
    return sum(losses[site][1] for site in sites)


def _mean_loss(losses: Losses, sites: Sequence[str]) -> float:
    return sum(losses[site][0] * losses[site][1] for site in sites) / max(_cases(losses, sites), 1)


def _places(plain: dict[str, Any]) -> tuple[_Place, _Place]:
    """Return where a checkpoint's state and its selected version lie.

    Raises:
        ValueError: A file is not one of ours.
    """
    state, selected = (_Place(str(plain[key]["file"]), str(plain[key]["sha256"])) for key in _PLACES)
    for place in (state, selected):
        if not _FILE.fullmatch(place.file):
            raise ValueError(f"it names the file {place.file[:40]!r}; expected one beside it, of a round")
    return state, selected


def _to_plain(checkpoint: Checkpoint, state: _Place, selected: _Place) -> dict[str, Any]:
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
        **{key: asdict(place) for key, place in zip(_PLACES, (state, selected), strict=True)},
    }


def _from_plain(plain: dict[str, Any], state: State, selected: Tensor) -> Checkpoint:
    return Checkpoint(
        study_hash=plain["study_hash"],
        round=int(plain["round"]),
        state=state,
        selection=Selection(
            int(plain["selection"]["version"]),
            selected,
            {site: (float(loss), int(n)) for site, (loss, n) in plain["selection"]["losses"].items()},
        ),
        last_counted={str(site): int(number) for site, number in plain["last_counted"].items()},
        events=int(plain["events"]),
        is_finished=bool(plain["is_finished"]),
    )
