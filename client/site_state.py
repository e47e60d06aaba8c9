"""A site's state between rounds: committed, the one committed before it, and pending until known to count.

Why: a round that the coordinator never closed, or that closed without this site, must leave no trace in
control variates or personal parameters. What a round leaves is pending; the next plan says in which round
this site's last update counted, and only that makes pending state final. The state committed before the last
one is kept as long: a coordinator that loses its newest checkpoint goes on from the one before.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.errors import CheckpointError

_PENDING = "pending"
_COMMITTED = "committed"
_PREVIOUS = "previous"


class SiteStateStore:
    """The state of one study at one site; at most three files, each written whole or not at all."""

    def __init__(self, folder: Path, study_hash: str) -> None:
        """Keep the state of one study below a folder of the site's."""
        self._folder = folder / "algorithm" / study_hash[:32]

    def begin(self, last_counted_round: int, first: State) -> State:
        """Return the state on which a new round builds.

        Commits the pending state if it is of the last counted round; discards it otherwise. A plan that
        builds on the state committed before the last one takes that back, and the last one is forgotten.

        Args:
            last_counted_round: From the plan; 0 where no round has counted, so that the first state is due.
            first: The state before any round.

        Raises:
            CheckpointError: The plan builds on a round of which this site has no state, or the state is
                damaged.
        """
        if last_counted_round == 0:
            self._path(_PENDING).unlink(missing_ok=True)
            return first
        for name in (_PENDING, _COMMITTED, _PREVIOUS):
            found = self._read(name)
            if found is not None and found[0] == last_counted_round:
                self._commit(name)
                return found[1]
        if first:
            raise CheckpointError(
                f"the plan builds on round {last_counted_round}, of which this site has no state; "
                "restore the site's state folder or start the study anew"
            )
        return first

    def committed(self, first: State) -> State:
        """Return the newest state that is known to count, or the first one.

        Raises:
            CheckpointError: It is damaged.
        """
        # Killed between the two renames of a commit, a site has only the previous one.
        found = self._read(_COMMITTED) or self._read(_PREVIOUS)
        return first if found is None else found[1]

    def keep(self, round_number: int, state: State) -> None:
        """Keep what a round left, pending; a stateless algorithm leaves nothing and no file."""
        if not state:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        # Clones: entries may be views of one tensor, which the format refuses.
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
        write_bytes(self._path(_PENDING), save_tensors(tensors, metadata={"round": str(round_number)}))

    def _commit(self, name: str) -> None:
        """Make one of the three states the committed one; killed at any moment, it can be asked for again."""
        committed = self._path(_COMMITTED)
        if name == _PENDING and committed.exists():
            committed.replace(self._path(_PREVIOUS))
        self._path(name).replace(committed)
        self._path(_PENDING).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _read(self, name: str) -> tuple[int, State] | None:
        """Return round and state of a file, or None where there is none."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as stream:
                names = list(stream.keys())
                state = {name: stream.get_tensor(name).clone() for name in names}
                return int(stream.metadata()["round"]), state
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: the site's state cannot be read: {error}; restore it or start the study anew"
            ) from error
