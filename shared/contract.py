"""The contract: a study with everything that the coordinator must know about its model, and one hash.

The coordinator never builds a model: layout and initial parameters come with the contract, frozen where the
models are installed. Sites need the :class:`Terms` alone: parameters reach them with every plan.
"""

import hashlib
import json
import math
import mmap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.canonical import canonical_json, hash_of, hash_of_vectors
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import CheckpointError, ProtocolError
from fedcad.shared.layout import Layout
from fedcad.shared.version import __version__

FORMAT = 3
LARGEST_TEXT = 8 * 2**20
"""Characters of a contract's text: the layout of a network of 50,000 arrays is smaller."""
_TEXT = "contract.json"
_TENSORS = "initial.safetensors"
_NOTHING = hash_of_vectors({})
_DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError, ProtocolError)
"""What reading damaged text or tensors raises; pydantic's ValidationError is a ValueError."""


@dataclass(frozen=True)
class Terms:
    """A contract without its parameters: all that a site needs to know, and all that is signed.

    Attributes:
        study: The study.
        layout: Layout of its model.
        initial_sha256: Hash of the initial exchanged parameters.
        unexchanged_sha256: Hash of the initial values of all other entries (frozen, local, integer buffers).
            They do not travel: every party builds them from the study's seed and compares this hash.
    """

    study: StudyConfig
    layout: Layout
    initial_sha256: str
    unexchanged_sha256: str = _NOTHING

    @cached_property
    def study_hash(self) -> str:
        """Hash of study, layout, all initial values and versions: the name that plans use."""
        return hash_of(self.to_plain())

    def to_plain(self) -> dict[str, Any]:
        """Return the terms as plain data for JSON, with the version of FedCAD and of this format."""
        return {
            "format": FORMAT,
            "fedcad": __version__,
            "study": self.study.model_dump(mode="json"),
            "layout": self.layout.to_plain(),
            "initial_sha256": self.initial_sha256,
            "unexchanged_sha256": self.unexchanged_sha256,
        }

    def text(self) -> str:
        """Return the terms as canonical JSON, the one text that :meth:`from_text` accepts for them."""
        return canonical_json(self.to_plain()).decode()

    @classmethod
    def from_text(cls, text: object) -> "Terms":
        """Read terms from text that may be hostile.

        Raises:
            ProtocolError: Not text, too large, not terms, of another version, or written in another way.
        """
        if not isinstance(text, str) or len(text) > LARGEST_TEXT:
            raise ProtocolError(f"a contract must be JSON text of at most {LARGEST_TEXT} characters")
        try:
            terms = cls.from_plain(json.loads(text))
        except _UNREADABLE as error:
            raise ProtocolError(f"the contract cannot be read: {str(error)[:300]}") from error
        if terms.text() != text:
            raise ProtocolError(
                "the contract is of another version of FedCAD, or was changed; this is "
                f"FedCAD {__version__}: install the version with which the study was frozen"
            )
        return terms

    @classmethod
    def from_plain(cls, plain: Any) -> "Terms":
        """Read plain data; raises whatever is wrong with them."""
        study = StudyConfig.model_validate_json(json.dumps(plain["study"]))
        layout = Layout.from_plain(plain["layout"])
        return cls(study, layout, str(plain["initial_sha256"]), str(plain["unexchanged_sha256"]))


@dataclass(frozen=True)
class Contract:
    """A study, frozen, with its initial parameters.

    Attributes:
        study: The study.
        layout: Layout of its model.
        initial: Initial exchanged parameters, float32, shape (layout.size,).
        unexchanged_sha256: As in the :class:`Terms`.
    """

    study: StudyConfig
    layout: Layout
    initial: Tensor
    unexchanged_sha256: str = _NOTHING
    _mapping: mmap.mmap | None = field(default=None, repr=False, compare=False)

    def release(self) -> None:
        """Let the memory of the initial parameters go where they lie in a file; their next use reads it."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def terms(self) -> Terms:
        """The contract without its parameters."""
        initial_sha256 = hash_of_vectors({"model": self.initial.numpy()})
        return Terms(self.study, self.layout, initial_sha256, self.unexchanged_sha256)

    @property
    def study_hash(self) -> str:
        """Hash of study, layout, all initial values and versions: the name that plans use."""
        return self.terms.study_hash

    def save(self, folder: Path) -> None:
        """Write the contract into a folder, made if absent; the JSON text last, atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = save_tensors({"model": self.initial})
        write_bytes(folder / _TENSORS, tensors)
        write_bytes(folder / _TEXT, self._text(tensors))

    def _text(self, tensors: bytes | mmap.mmap) -> bytes:
        """Return the JSON text that goes with a file of tensors; hashes in it make any change show."""
        found = {"study_hash": self.study_hash, "tensors_sha256": hashlib.sha256(tensors).hexdigest()}
        return canonical_json(self.terms.to_plain() | found)

    @classmethod
    def load(cls, folder: Path) -> "Contract":
        """Read what :meth:`save` wrote and check that the parts belong together.

        The initial parameters stay in their file, which is replaced whole or not at all: they are needed
        once, and would else take as much memory as the model for as long as the study runs.

        Raises:
            CheckpointError: A part is missing, not of this version, or differs in any byte from what was
                saved.
        """
        try:
            text, tensors = (folder / _TEXT).read_bytes(), _mapped(folder / _TENSORS)
            terms = Terms.from_plain(json.loads(text))
            initial = _tensor_in(tensors)
            contract = cls(terms.study, terms.layout, initial, terms.unexchanged_sha256, tensors)
            is_whole = contract._text(tensors) == text
            contract.release()
        except _UNREADABLE as error:
            raise CheckpointError(f"{folder}: the contract cannot be read: {error}") from error
        if not is_whole:
            raise CheckpointError(
                f"{folder}: the contract's parts do not belong together, or to this version; "
                "copy the folder again, or freeze the study anew"
            )
        if contract.initial.dtype != torch.float32 or contract.initial.shape != (contract.layout.size,):
            raise CheckpointError(
                f"{folder}: the initial parameters are {contract.initial.dtype} of shape "
                f"{tuple(contract.initial.shape)}; the layout needs float32 ({contract.layout.size},)"
            )
        return contract


def _mapped(path: Path) -> mmap.mmap:
    """Return a file's bytes; what is written to them stays in this process."""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def _tensor_in(tensors: mmap.mmap) -> Tensor:
    """Return the one tensor of a safetensors file without a copy; raises whatever is wrong with the file."""
    start = 8 + int.from_bytes(tensors[:8], "little")
    if start > len(tensors):
        raise ValueError("the file of tensors is cut off")
    described = json.loads(tensors[8:start])["model"]
    dtype, (first, end) = _DTYPES[described["dtype"]], described["data_offsets"]
    shape = [int(length) for length in described["shape"]]
    if not 0 <= first < end <= len(tensors) - start or end - first != math.prod(shape) * dtype.itemsize:
        raise ValueError("the file of tensors does not hold what it says")
    flat = torch.frombuffer(tensors, dtype=dtype, offset=start + first, count=math.prod(shape))
    return flat.view(shape)
