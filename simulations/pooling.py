"""All sites' cases in one place, which real hospitals could not have: the pooled comparison.

Each case stays in the part (train, validation, test) that it has at its own site.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.case_source import CaseSource, Part

PARTS: tuple[Part, ...] = ("train", "validation", "test")


class PooledCases:
    """Several case sources, one behind the other."""

    def __init__(self, sources: Sequence[CaseSource]) -> None:
        """Join sources in the given order."""
        self._sources = tuple(sources)

    def patients(self, part: Part) -> NDArray[np.int64]:
        """Return for each case the number of its patient; sources share no patient."""
        found, first = [], 0
        for source in self._sources:
            numbers = source.patients(part)
            found.append(numbers + first)
            first += max(int(source.patients(each).max(initial=-1)) for each in PARTS) + 1
        return np.concatenate(found)

    def labels(self, part: Part) -> list[str]:
        """Return the label of each case."""
        return [label for source in self._sources for label in source.labels(part)]

    def inputs(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Return network inputs of some cases, float32, shape (len(indices), 1, size, size)."""
        wanted = np.asarray(indices, dtype=np.int64)
        lengths = [len(source.patients(part)) for source in self._sources]
        starts = np.cumsum([0, *lengths])
        owner = np.searchsorted(starts, wanted, side="right") - 1
        rows: list[Tensor | None] = [None] * len(wanted)
        for number in np.unique(owner):
            chosen = np.flatnonzero(owner == number)
            images = self._sources[number].inputs(part, (wanted[chosen] - starts[number]).tolist())
            for row, image in zip(chosen, images, strict=True):
                rows[row] = image
        return torch.stack([row for row in rows if row is not None])

    def summary(self) -> Mapping[str, Any]:
        """Return the number of sources."""
        return {"sources": len(self._sources)}
