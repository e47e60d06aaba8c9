"""Streaming sums of updates, exact in any order.

Why: floating sums depend on the order in which sites answer. Here each float32 value becomes a 64-bit fixed
point number (2⁻³² resolution), is multiplied by the site's integer weight and added in integers, so that any
order, and any grouping into partial sums, gives the same bits. Memory: one accumulator (8 bytes a value)
whatever the number of sites. Overflow is excluded for each update alone, from the sum of all weights that was
announced beforehand, so that no update can push out another one.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.server.spill import Spill
from fedcad.shared.algorithms.interface import Sums
from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.messages import LARGEST_WEIGHT
from fedcad.shared.parameters import tensor_of

FRACTION_BITS = 32
SCALE = float(2**FRACTION_BITS)
LIMIT = 2**62
"""Bound on |value| · Σ weights in fixed point, and on Σ weights. Rounding moves a sum by at most
½ · Σ weights, for which one bit of int64's range is left."""
BLOCK = 1 << 18
"""Values handled at a time, so that intermediates stay in the processor's cache."""
MAGIC = 1.5 * 2.0 ** (52 - FRACTION_BITS)
"""Added to a float64 it leaves the value's fixed-point number, rounded half to even, in the lowest bits."""
MAGIC_BITS = int(np.array(MAGIC).view(np.int64))
SMALL = 2.0 ** (51 - FRACTION_BITS)
"""Magnitude below which that holds: the sum stays between 2²⁰ and 2²¹, where float64 steps are 2⁻³²."""


class ExactSum:
    """A weighted sum of float32 vectors in int64 fixed point.

    Attributes:
        total_weight: Σ weight that was announced; no more can be added.
        weight: Σ weight of the vectors added so far.
        count: Number of vectors added so far.
    """

    def __init__(self, size: int, *, total_weight: int) -> None:
        """Start an empty sum.

        Args:
            size: Values of each vector.
            total_weight: Σ weight of all vectors that may come, also those of other partial sums.

        Raises:
            ValueError: The total is negative or above 2⁶².
        """
        if not 0 <= total_weight <= LIMIT:
            raise ValueError(f"the weights sum to {total_weight}; expected 0 to {LIMIT}")
        # NumPy's large arrays lie in huge pages; the first touch of torch's costs several times more.
        self._biased = torch.from_numpy(np.zeros(size, dtype=np.int64))
        self._bias = 0
        self.total_weight = total_weight
        self.weight = 0
        self.count = 0

    @property
    def bound(self) -> float:
        """Magnitude that every value must stay below: with it at all weights, the total is below 2⁶²."""
        return LIMIT / SCALE / max(self.total_weight, 1)

    @property
    def total(self) -> Tensor:
        """Σ weight · round(value · 2³²): int64, shape (size,)."""
        if self._bias:
            self._biased.sub_(_wrapped(self._bias))
            self._bias = 0
        return self._biased

    def add(self, vector: Tensor, *, weight: int) -> None:
        """Add one vector, or raise and leave the sum as it was.

        Args:
            vector: float32, shape (size,), finite.
            weight: Integer from 1 to 2³¹ − 1.

        Raises:
            InvalidUpdate: Wrong shape, dtype or weight, a weight beyond the announced total, not finite, or a
                value that could make the sum overflow.

        Guarantees:
            Whether a vector is accepted does not depend on the others, while weights sum to the total.
        """
        self._accumulate(vector, weight, self.check(vector, weight=weight))

    def _accumulate(self, vector: Tensor, weight: int, largest: float) -> None:
        if largest < SMALL:
            self._accumulate_small(vector, weight)
        else:
            self._accumulate_any(vector, weight)
        self.weight += weight
        self.count += 1

    def _accumulate_small(self, vector: Tensor, weight: int) -> None:
        """Add fixed-point numbers below the bits of :data:`MAGIC`, which are taken off later, modulo 2⁶⁴.

        Why: two passes over the block instead of three, and none that converts to integers.
        """
        scratch = torch.empty(BLOCK, dtype=torch.float64)
        bits = scratch.view(torch.int64)
        for start in range(0, len(vector), BLOCK):
            block = vector[start : start + BLOCK]
            scratch[: len(block)].copy_(block).add_(MAGIC)
            self._biased[start : start + BLOCK].add_(bits[: len(block)], alpha=weight)
        self._bias += weight * MAGIC_BITS

    def _accumulate_any(self, vector: Tensor, weight: int) -> None:
        scratch = torch.empty(BLOCK)
        integers = torch.empty(BLOCK, dtype=torch.int64)
        for start in range(0, len(vector), BLOCK):
            block = vector[start : start + BLOCK]
            fixed = integers[: len(block)]
            fixed.copy_(torch.mul(block, SCALE, out=scratch[: len(block)]).round_())
            self._biased[start : start + BLOCK].add_(fixed, alpha=weight)

    def check(self, vector: Tensor, *, weight: int) -> float:
        """Refuse a vector that cannot be added; return its largest magnitude.

        Raises:
            InvalidUpdate: As :meth:`add`.
        """
        if vector.dtype != torch.float32 or vector.shape != self._biased.shape:
            raise InvalidUpdate(
                f"got {vector.dtype} of shape {tuple(vector.shape)}; "
                f"expected float32 of shape {tuple(self._biased.shape)}"
            )
        if not 0 < weight <= LARGEST_WEIGHT:
            raise InvalidUpdate(f"got weight {weight}; expected 1 to {LARGEST_WEIGHT}")
        self._require_room(weight)
        low, high = torch.aminmax(vector) if len(vector) else (torch.zeros(()), torch.zeros(()))
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise InvalidUpdate("the update holds NaN or infinity")
        largest = max(-low.item(), high.item(), 0.0)
        if largest >= self.bound:
            raise InvalidUpdate(
                f"the largest value is {largest:.3g}; from {self.bound:.3g} on, sums with weights of "
                f"{self.total_weight} could overflow. The update has diverged: lower the learning rate"
            )
        return largest

    def _require_room(self, weight: int) -> None:
        if weight > self.total_weight - self.weight:
            raise InvalidUpdate(
                f"got weight {weight}; {self.weight} of the announced {self.total_weight} are already added"
            )

    def check_partial(self, other: "ExactSum") -> None:
        """Refuse a partial sum that cannot be combined with this one.

        Raises:
            InvalidUpdate: It is empty, of another size, was opened for another total weight, or its weight is
                beyond what is left of it.
        """
        if other.total.shape != self.total.shape:
            raise InvalidUpdate(f"got a sum of {len(other.total)} values; expected {len(self.total)}")
        if other.total_weight != self.total_weight:
            # Its vectors were held against another bound.
            raise InvalidUpdate(
                f"got a sum that was opened for weights of {other.total_weight}; expected {self.total_weight}"
            )
        if other.count < 1:
            raise InvalidUpdate("got an empty sum; expected at least one update")
        self._require_room(other.weight)

    def combine(self, other: "ExactSum") -> None:
        """Add another partial sum; the same bits as adding its vectors one by one.

        Raises:
            InvalidUpdate: As :meth:`check_partial`; nothing is changed.
        """
        self.check_partial(other)
        self.total.add_(other.total)
        self.weight += other.weight
        self.count += other.count

    def mean(self) -> Tensor:
        """Return Σ weight · value / Σ weight as float32, shape (size,).

        Raises:
            InvalidUpdate: Nothing was added.
        """
        if self.weight == 0:
            raise InvalidUpdate("no update was added; there is no mean")
        result = torch.from_numpy(np.empty(len(self._biased), dtype=np.float32))
        integers = torch.empty(BLOCK, dtype=torch.int64)
        exact = torch.empty(BLOCK, dtype=torch.float64)
        divisor, bias = self.weight * SCALE, _wrapped(self._bias)
        for start in range(0, len(result), BLOCK):
            block = self._biased[start : start + BLOCK]
            total = torch.sub(block, bias, out=integers[: len(block)])
            result[start : start + BLOCK] = exact[: len(block)].copy_(total).div_(divisor)
        return result


def _wrapped(number: int) -> int:
    """Return the int64 that is congruent to a number modulo 2⁶⁴."""
    return (number + 2**63) % 2**64 - 2**63


class Aggregator:
    """The running sums of one round and, where an algorithm needs them, the single updates on disk."""

    def __init__(self) -> None:
        """Start closed; :meth:`begin` opens a round."""
        self._sums: dict[str, ExactSum] | None = None
        self._enrolled = 0
        self._spill: Spill | None = None

    def begin(
        self,
        sizes: Mapping[str, int],
        total_weights: Mapping[str, int],
        *,
        enrolled: int,
        spill: Spill | None = None,
    ) -> None:
        """Open a round in which every update has exactly these named vectors.

        Args:
            sizes: Length of each named vector.
            total_weights: Σ weight of all updates that may come, for each vector, known from enrolment. It
                bounds their values.
            enrolled: Number of sites enrolled in the study, for :class:`Sums`.
            spill: Where single updates are kept for algorithms that need them; excludes masking.

        Raises:
            ValueError: No vector is named, not exactly these have a total weight, or one is negative or
                above 2⁶².
        """
        if not sizes or set(sizes) != set(total_weights):
            raise ValueError(
                f"a round needs at least one named vector and a total weight for each; got vectors "
                f"{sorted(sizes)} and weights of {sorted(total_weights)}"
            )
        self._sums = {name: ExactSum(size, total_weight=total_weights[name]) for name, size in sizes.items()}
        self._enrolled = enrolled
        self._spill = spill

    def add(self, vectors: Mapping[str, NDArray[np.float32]], *, weights: Mapping[str, int]) -> None:
        """Add one update, each vector with its own weight: all of its vectors, or none.

        Raises:
            InvalidUpdate: A vector or its weight is missing or unexpected, it is of wrong shape or dtype, not
                finite or too large, or a weight is beyond what is left of the total.
        """
        sums = self._named(vectors)
        if set(weights) != set(sums):
            raise InvalidUpdate(f"the update has weights of {sorted(weights)}; expected {sorted(sums)}")
        tensors = {name: _checked_tensor(name, values) for name, values in vectors.items()}
        largest = {name: sums[name].check(tensor, weight=weights[name]) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            sums[name]._accumulate(tensor, weights[name], largest[name])
        if self._spill is not None:
            self._spill.add(vectors, weights=weights)

    def add_partial(self, partial: Mapping[str, ExactSum]) -> None:
        """Add the sums of several updates at once, for aggregation in levels: all of them, or none.

        The result is, to the bit, that of adding the updates one by one. Every level opens its sums for the
        total weights of the whole round, so that all refuse the same updates.

        Raises:
            InvalidUpdate: A sum is missing, unexpected, empty, of another size or total weight, has more
                weight than is left, or is of another number of updates than the others; or the round needs
                single updates.
        """
        sums = self._named(partial)
        if self._spill is not None:
            raise InvalidUpdate("got sums of updates; the study's algorithm needs each update on its own")
        if len({each.count for each in partial.values()}) != 1:
            raise InvalidUpdate("the sums of one partial result differ in their number of updates")
        for name, each in partial.items():
            sums[name].check_partial(each)
        for name, each in partial.items():
            sums[name].combine(each)

    def close(self) -> Sums:
        """End the round and return its means.

        Raises:
            InvalidUpdate: No update was added.
        """
        sums, self._sums = self._open(), None
        count = next(iter(sums.values())).count
        means = {name: total.mean() for name, total in sums.items()}
        weights = {name: total.weight for name, total in sums.items()}
        individual = self._spill.updates() if self._spill is not None else ()
        return Sums(means, weights, count, self._enrolled, individual)

    def _named(self, got: Mapping[str, object]) -> dict[str, ExactSum]:
        """Return the round's sums, or refuse what has other names."""
        sums = self._open()
        if set(got) != set(sums):
            raise InvalidUpdate(f"the update has vectors {sorted(got)}; expected {sorted(sums)}")
        return sums

    def _open(self) -> dict[str, ExactSum]:
        if self._sums is None:
            raise ValueError("begin() opens a round before add() and close()")
        return self._sums


def _checked_tensor(name: str, values: NDArray[np.float32]) -> Tensor:
    """Return a vector as a tensor; torch cannot hold every NumPy type and would make a scalar a vector."""
    if values.dtype != np.float32 or values.ndim != 1:
        raise InvalidUpdate(f"{name}: got {values.dtype} of shape {values.shape}; expected a float32 vector")
    return tensor_of(values)
