"""Single updates on disk, for algorithms that must compare them (median, Krum): memory stays bounded.

They cannot be had under masking, where the coordinator never sees one.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedcad.shared.algorithms.interface import WeightedUpdate
from fedcad.shared.canonical import hash_of_vectors

Weights = tuple[tuple[str, int], ...]


class Spill:
    """A folder of the single updates of one round, one file for each vector."""

    def __init__(self, folder: Path) -> None:
        """Start empty; what an interrupted round left is removed."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.float32"):
            left.unlink()
        self._kept: list[tuple[str, Weights, dict[str, Path]]] = []

    def add(self, vectors: Mapping[str, NDArray[np.float32]], *, weights: Mapping[str, int]) -> None:
        """Write one update and the weight of each of its vectors to disk."""
        paths = {name: self._folder / f"{len(self._kept)}-{name}.float32" for name in vectors}
        for name, path in paths.items():
            np.asarray(vectors[name], dtype=np.float32).tofile(path)
        self._kept.append((hash_of_vectors(vectors), tuple(sorted(weights.items())), paths))

    def updates(self) -> tuple[WeightedUpdate, ...]:
        """Return the updates as memory maps, in an order that does not depend on their arrival."""
        return tuple(
            WeightedUpdate({name: _open(path) for name, path in paths.items()}, dict(weights))
            for _, weights, paths in sorted(self._kept, key=lambda kept: kept[:2])
        )


def _open(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.memmap(path, dtype=np.float32, mode="c"))
