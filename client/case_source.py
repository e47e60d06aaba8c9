"""What training and evaluation see of a site's cases, whatever archive they come from."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Part = Literal["train", "validation", "test"]


class CaseSource(Protocol):
    """Cases of one site, divided by patient."""

    def patients(self, part: Part) -> NDArray[np.int64]:
        """Return for each case the number of its patient within the site, shape (cases,)."""
        ...

    def labels(self, part: Part) -> Sequence[str]:
        """Return the label of each case."""
        ...

    def inputs(self, part: Part, indices: Sequence[int]) -> Mapping[str, Tensor]:
        """Return named network inputs of some cases, first axis the case, free to be changed.

        An input named ``image`` is float32 (len(indices), 1, size, size); it is the one that augmentation
        changes.
        """
        ...

    def summary(self) -> Mapping[str, Any]:
        """Return counts by part, label, vendor and view, and rejects by reason; no identifiers."""
        ...
