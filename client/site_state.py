"""A site's state between rounds: committed, and pending until it is known to count.

Why: a round that the coordinator never closed, or that closed without this site, must leave no trace in
control variates or personal parameters. What a round leaves is pending; the next plan says in which round
this site's last update counted, and only that makes pending state final.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import CheckpointError

_PENDING = "pending"
_COMMITTED = "committed"


class SiteStateStore:
    """The state of one study at one site; at most two files, each written whole or not at all."""

    def __init__(self, folder: Path, study_hash: str) -> None:
        """Keep the state of one study below a folder of the site's."""
        self._folder = folder / "algorithm" / study_hash[:32]

    def begin(self, last_counted_round: int, first: State) -> State:
        """Return the state on which a new round builds.

        Commits the pending state if it is of the last counted round; discards it otherwise.

        Args:
            last_counted_round: From the plan.
            first: The state before any round.

        Raises:
            CheckpointError: The plan builds on a round of which this site has no state, or the state is
                damaged.
        """
        for name in (_PENDING, _COMMITTED):
            found = self._read(name)
            if found is not None and found[0] == last_counted_round:
                self._path(name).replace(self._path(_COMMITTED))
                self._path(_PENDING).unlink(missing_ok=True)
                return found[1]
        if first and last_counted_round:
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
        found = self._read(_COMMITTED)
        return first if found is None else found[1]

    def keep(self, round_number: int, state: State) -> None:
        """Keep what a round left, pending; a stateless algorithm leaves nothing and no file."""
        if not state:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # Clones: entries may be views of one tensor, which the format refuses.
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
        write_bytes(self._path(_PENDING), save_tensors(tensors, metadata={"round": str(round_number)}))

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
