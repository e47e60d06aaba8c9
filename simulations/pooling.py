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

    def inputs(self, part: Part, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return named network inputs of some cases, first axis the case."""
        wanted = np.asarray(indices, dtype=np.int64)
        lengths = [len(source.patients(part)) for source in self._sources]
        starts = np.cumsum([0, *lengths])
        owner = np.searchsorted(starts, wanted, side="right") - 1
        found = [
            source.inputs(part, (wanted[owner == number] - starts[number]).tolist())
            for number, source in enumerate(self._sources)
            if number in owner or not len(wanted)
        ]
        # Found are the cases of one source after the other; wanted are they in the order of the indices.
        order = torch.from_numpy(np.argsort(np.argsort(owner, kind="stable"), kind="stable"))
        return {name: torch.cat([inputs[name] for inputs in found])[order] for name in found[0]}

    def summary(self) -> Mapping[str, Any]:
        """Return the number of sources."""
        return {"sources": len(self._sources)}
