"""A site's state between rounds: pending until known to count, and kept while it may still be needed.

Why: a round that the coordinator never closed, or that closed without this site, must leave no trace in
control variates or personal parameters. What a round leaves is pending; the next plan says in which round
this site's last update counted, and only that makes pending state final.

Two more things may be needed later. The model that is tested in the end is the one of the selected version,
with the personal parameters that the site had then. And a coordinator that loses its newest checkpoint goes
on from the one before. A plan therefore says which version is selected so far, and each state remembers what
the plan said under which it was made. Kept are the state on which the newest plan builds, the one of its
selected version, and these two of the plan under which the former was made: from there on, nothing else can
be selected but newer states. That is at most four files, and a pending one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.errors import CheckpointError

_PENDING = "pending.safetensors"
_ROUND = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True)
class _Kept:
    """What a file holds: the state that a round left, and what its plan said."""

    path: Path
    built_on: int
    selected: int
    state: State


class SiteStateStore:
    """The state of one study at one site; at most five files, each written whole or not at all."""

    def __init__(self, folder: Path, study_hash: str) -> None:
        """Keep the state of one study below a folder of the site's."""
        self._folder = folder / "algorithm" / study_hash[:32]

    def begin(self, last_counted_round: int, first: State, *, selected_round: int = 0) -> State:
        """Return the state on which a new round builds.

        Commits the pending state if it is of the last counted round; discards it otherwise. States of later
        rounds are forgotten: the coordinator has gone back.

        Args:
            last_counted_round: From the plan; 0 where no round has counted, so that the first state is due.
            first: The state before any round.
            selected_round: From the plan; the version that is selected so far.

        Raises:
            CheckpointError: The plan builds on a round of which this site has no state, or the state is
                damaged.
        """
        if last_counted_round == 0:
            self._pending.unlink(missing_ok=True)
            return first
        kept = self._find(last_counted_round)
        if kept is None:
            if first:
                raise CheckpointError(
                    f"the plan builds on round {last_counted_round}, of which this site has no state; "
                    "restore the site's state folder or start the study anew"
                )
            return first
        if kept.path == self._pending:
            self._pending.replace(self._path(last_counted_round))
        versions = (self._as_of(version) for version in (selected_round, kept.selected))
        self._forget_all_but(last_counted_round, kept.built_on, *versions)
        return kept.state

    def selected(self, round_number: int, first: State) -> State:
        """Return the state that a round left and that counted, for a test; nothing is changed.

        Args:
            round_number: The site's last counted round of the selected version; 0 where there was none.
            first: The state before any round.

        Raises:
            CheckpointError: It is not here, or damaged.
        """
        if round_number == 0 or not first:
            return first
        kept = self._find(round_number)
        if kept is None:
            raise CheckpointError(
                f"the selected version was made after this site's round {round_number}, of which it has no "
                "state; restore the site's state folder, or start the study anew"
            )
        return kept.state

    def keep(self, round_number: int, state: State, *, built_on: int, selected_round: int = 0) -> None:
        """Keep what a round left, pending; a stateless algorithm leaves nothing and no file.

        Args:
            round_number: The round.
            state: What it left.
            built_on: The last counted round of its plan.
            selected_round: The version that its plan named as selected.
        """
        if not state:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        # Clones: entries may be views of one tensor, which the format refuses.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        facts = {"round": round_number, "built_on": built_on, "selected": selected_round}
        metadata = {name: str(fact) for name, fact in facts.items()}
        write_bytes(self._pending, save_tensors(tensors, metadata=metadata))

    @property
    def _pending(self) -> Path:
        return self._folder / _PENDING

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:05d}.safetensors"

    def _find(self, round_number: int) -> _Kept | None:
        """Return the newest state that a round left: a repeated round's before the first try's."""
        pending = self._read(self._pending, round_number)
        return pending or self._read(self._path(round_number), round_number)

    def _as_of(self, version: int) -> int:
        """Return the round of the newest committed state that a version can have been made with."""
        return max((number for number in self._rounds() if number <= version), default=0)

    def _rounds(self) -> Iterable[int]:
        found = (_ROUND.fullmatch(path.name) for path in self._folder.glob("round-*"))
        return [int(match[1]) for match in found if match]

    def _forget_all_but(self, *rounds: int) -> None:
        """Remove what cannot be needed; the pending state of a round that did not count is among it."""
        self._pending.unlink(missing_ok=True)
        for number in set(self._rounds()) - set(rounds):
            self._path(number).unlink(missing_ok=True)

    def _read(self, path: Path, round_number: int) -> _Kept | None:
        """Return what a file holds, or None where there is none, or the state of another round in it."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as stream:
                facts = {name: int(fact) for name, fact in stream.metadata().items()}
                if facts["round"] != round_number:
                    return None
                names = list(stream.keys())
                state = {name: stream.get_tensor(name).clone() for name in names}
                return _Kept(path, facts["built_on"], facts["selected"], state)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: the site's state cannot be read: {error}; restore it or start the study anew"
            ) from error
