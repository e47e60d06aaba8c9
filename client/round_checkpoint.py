"""A checkpoint inside a round: a node that is killed while it trains goes on where it was, bit by bit.

Why beside the site's state: that one is transactional over rounds and never sees a half-trained model. This
file belongs to one plan, is only ever read by the same plan's training, and is removed with its answer kept.
Where it cannot be used (damaged, or of another version) the round's training begins anew: same bits, later.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcad.client.personal import restore
from fedcad.client.workbench import Workbench
from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.layout import Role
from fedcad.shared.parameters import named_tensors
from fedcad.shared.version import __version__

_LOG = logging.getLogger("fedcad.client")
_VERSION = f"fedcad {__version__}, torch {torch.__version__}"
_FLAT, _ENTRY, _OPTIMIZER = "flat", "entry/", "optimizer/"
_DROPOUT, _AUGMENTATION, _GPU = "random/dropout", "random/augmentation", "random/gpu"


class StopRequested(Exception):  # noqa: N818 - not an error: the work is saved and goes on later
    """The process was asked to stop, and the training's checkpoint is on the disk."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that a local training changes, or draws from.

    Attributes:
        bench: Its networks.
        optimizers: Its optimizers, in the order of the objectives.
        augmentation: Generator of the changes of images; torch's own, which dropout uses, are known.
    """

    bench: Workbench
    optimizers: Sequence[torch.optim.Optimizer]
    augmentation: torch.Generator

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; those of networks and optimizers share their memory."""
        found = {_FLAT: self.bench.flat.values}
        found |= {_ENTRY + name: tensor.detach() for name, tensor in self._entries().items()}
        found |= {
            f"{_OPTIMIZER}{number}/{parameter}/{key}": value
            for number, parameter, key, value in self._optimizer_values()
            if isinstance(value, Tensor)
        }
        found[_DROPOUT] = torch.get_rng_state()
        if self.bench.device.type == "cuda":
            found[_GPU] = torch.cuda.get_rng_state(self.bench.device)
        found[_AUGMENTATION] = self.augmentation.get_state()
        return found

    def plain(self) -> list[list[Any]]:
        """Return what optimizers keep beside tensors: number, parameter, key, value."""
        return [list(each) for each in self._optimizer_values() if not isinstance(each[3], Tensor)]

    def put(self, tensors: dict[str, Tensor], plain: list[list[Any]]) -> None:
        """Put saved tensors and plain values in.

        Raises:
            ValueError: They are of another model; nothing was changed.
        """
        kept = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER)}
        if kept != {
            name: tensor.shape for name, tensor in self.tensors().items() if not name.startswith(_OPTIMIZER)
        }:
            raise ValueError("the checkpoint inside the round is of another model")
        states = self._optimizer_states(tensors, plain)
        with torch.no_grad():
            self.bench.flat.values.copy_(tensors[_FLAT])
        restore(self.bench.networks, {name: tensors[_ENTRY + name] for name in self._entries()})
        for optimizer, values in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
        torch.set_rng_state(tensors[_DROPOUT])
        if self.bench.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[_GPU], self.bench.device)
        self.augmentation.set_state(tensors[_AUGMENTATION])

    def _optimizer_states(
        self, tensors: dict[str, Tensor], plain: list[list[Any]]
    ) -> list[dict[int, dict[str, Any]]]:
        """Return each optimizer's state by parameter, after a look at every shape."""
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self.optimizers]
        shapes = [
            [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
            for optimizer in self.optimizers
        ]
        for name, tensor in tensors.items():
            if name.startswith(_OPTIMIZER):
                number, parameter, key = name.removeprefix(_OPTIMIZER).split("/")
                if tensor.shape not in (torch.Size(), shapes[int(number)][int(parameter)]):
                    raise ValueError("the checkpoint inside the round is of another model")
                states[int(number)].setdefault(int(parameter), {})[key] = tensor
        for number, parameter, key, value in plain:
            states[number].setdefault(parameter, {})[key] = value
        return states

    def _entries(self) -> dict[str, Tensor]:
        """Return what training may change beside the flat parameters: buffers and personal entries."""
        roles = {entry.name: entry.role for entry in self.bench.contract.layout.entries}
        kept = (Role.BUFFER, Role.LOCAL)
        return {name: tensor for name, tensor in named_tensors(self.bench.networks) if roles[name] in kept}

    def _optimizer_values(self) -> list[tuple[int, int, str, Any]]:
        return [
            (number, parameter, key, value)
            for number, optimizer in enumerate(self.optimizers)
            for parameter, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        ]


class RoundCheckpoint:
    """The file of one plan's training.

    Guarantees:
        Killed at any moment, a training that goes on from the file ends with the bits of one that was not:
        on a GPU as far as its kernels repeat their own bits. A file of another kind of device is not used.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_s: float,
        is_stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a file for one plan.

        Args:
            path: Named by the plan's identity; its folder exists.
            interval_s: Seconds between two checkpoints.
            is_stopping: Whether this process was asked to stop; looked at after every step.
            clock: Seconds that never go back.
        """
        self._path = path
        self._interval_s = interval_s
        self._is_stopping = is_stopping
        self._clock = clock
        self._training = 0
        self._saved_at = clock()

    def resume(self, state: TrainingState) -> int:
        """Put in what was saved of this training, and return its number of finished steps; 0 to begin.

        An algorithm may train several times in a round: the n-th call is that of the n-th training, and only
        the one that was interrupted goes on; earlier ones are repeated.
        """
        self._training += 1
        self._saved_at = self._clock()
        try:
            steps = self._read(state)
        except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
            _LOG.warning("the checkpoint inside the round cannot be used (%s)", type(error).__name__)
            return 0
        if steps:
            _LOG.info("the interrupted round goes on after step %d", steps)
        return steps

    def after_step(self, state: TrainingState, steps: int) -> None:
        """Save where the interval has passed or the process is to stop; a full disk does not end the work.

        Args:
            state: The training.
            steps: How many steps it has finished.

        Raises:
            StopRequested: The process is to stop; the checkpoint is on the disk if that has room.
        """
        is_stopping = self._is_stopping()
        if not is_stopping and self._clock() - self._saved_at < self._interval_s:
            return
        try:
            self._save(state, steps)
        except OSError as error:
            _LOG.warning("no checkpoint inside the round: %s", error.strerror)
        self._saved_at = self._clock()
        if is_stopping:
            raise StopRequested

    def _save(self, state: TrainingState, steps: int) -> None:
        remove_leftovers(self._path.parent)
        said = {
            "training": self._training,
            "steps": steps,
            "version": _VERSION,
            "device": state.bench.device.type,
            "plain": state.plain(),
        }
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors().items()}
        write_bytes(self._path, save_tensors(tensors, metadata={"said": json.dumps(said)}))

    def remove(self) -> None:
        """Remove the file: the answer is kept."""
        self._path.unlink(missing_ok=True)

    def _read(self, state: TrainingState) -> int:
        if not self._path.exists():
            return 0
        with safe_open(self._path, framework="pt") as stream:
            said = json.loads(stream.metadata()["said"])
            if said["version"] != _VERSION or said["training"] != self._training:
                return 0
            if said["device"] != state.bench.device.type:
                return 0
            names = list(stream.keys())
            state.put({name: stream.get_tensor(name) for name in names}, said["plain"])
            return int(said["steps"])


_ACTIVE: ContextVar[RoundCheckpoint | None] = ContextVar("checkpoint inside the round", default=None)


@contextmanager
def checkpointed(checkpoint: RoundCheckpoint | None) -> Iterator[None]:
    """Let trainings inside the block go on from a checkpoint and write it; None leaves them alone.

    Why not an argument of the training: between the worker, which knows that it may be killed, and the
    training stand the node and the study's algorithm, and neither has anything to do with it.
    """
    token = _ACTIVE.set(checkpoint)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active_checkpoint() -> RoundCheckpoint | None:
    """Return the checkpoint of the block that this runs in; None where there is none, as in simulations."""
    return _ACTIVE.get()
