"""How a run ended: the model as a file that other programs can read, and a few facts beside it."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcad.server.checkpoint import Checkpoint
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.errors import CheckpointError
from fedcad.shared.layout import Layout

MODEL = "model.safetensors"
_NAME = "outcome.json"


def write_outcome(folder: Path, checkpoint: Checkpoint, layout: Layout, *, stopped: str = "") -> None:
    """Write the selected model under its own names and shapes, then ``outcome.json``.

    Args:
        folder: Run folder.
        checkpoint: Newest checkpoint.
        layout: Layout of the model.
        stopped: Why the run stopped early, else empty.
    """
    model = checkpoint.selection.model
    named = {entry.name: model[place].view(entry.shape).clone() for entry, place in layout.slices()}
    write_bytes(folder / MODEL, save_tensors(named))
    outcome: dict[str, Any] = {
        "status": "stopped" if stopped else "completed",
        "reason": stopped,
        "model_sha256": model_hash(model),
        "last_sha256": model_hash(checkpoint.state["model"]),
        "selected_version": checkpoint.selection.version,
        "rounds_closed": checkpoint.round,
    }
    write_bytes(folder / _NAME, json.dumps(outcome, indent=1).encode())


def model_hash(model: Tensor) -> str:
    """Return the SHA-256 by which a parameter vector is known."""
    return hash_of_vectors({"model": model.numpy()})


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Return what :func:`write_outcome` wrote, or None where the run has not ended.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / _NAME
    try:
        outcome: dict[str, Any] | None = json.loads(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        raise CheckpointError(f"{path}: how the run ended cannot be read; resume the run: {error}") from error
    return outcome
