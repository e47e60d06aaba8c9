"""A site's algorithm state between rounds: committed, and pending until it is known to count.

Why: a round that the coordinator never closed, or that closed without this site, must leave no trace in
control variates or personal parameters. What a round leaves is pending; the next plan says in which round
this site's last update counted, and only that makes pending state final.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fedcad.shared.algorithms.interface import State
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import CheckpointError


class SiteStateStore:
    """The algorithm state of one study at one site; at most two files."""

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
            CheckpointError: The plan builds on a round of which this site has no state.
        """
        pending, committed = self._path("pending"), self._path("committed")
        for path, number in [(pending, self._round("pending")), (committed, self._round("committed"))]:
            if number is not None and number == last_counted_round:
                path.replace(committed)
                pending.unlink(missing_ok=True)
                return self._read(committed)
        if first and last_counted_round:
            raise CheckpointError(
                f"the plan builds on round {last_counted_round}, of which this site has no state; "
                "restore the site's state folder or start the study anew"
            )
        return first

    def keep(self, round_number: int, state: State) -> None:
        """Keep what a round left, pending; a stateless algorithm leaves nothing and no file."""
        if not state:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path("pending"), save_tensors(state, metadata={"round": str(round_number)}))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _round(self, name: str) -> int | None:
        path = self._path(name)
        if not path.exists():
            return None
        with _open(path) as tensors:
            return int((tensors.metadata() or {})["round"])

    def _read(self, path: Path) -> State:
        try:
            return load_tensors(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: the site's algorithm state cannot be read: {error}") from error


def _open(path: Path):  # type: ignore[no-untyped-def]
    from safetensors import safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the site's algorithm state cannot be read: {error}") from error
