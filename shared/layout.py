"""Which numbers of a model travel, in which order: the layout that both sides agree on.

The exchanged vector is one flat float32 vector: first every *trained* entry in order, then every floating
*buffer*. Frozen and local entries and integer buffers never travel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from fedcad.shared.errors import ProtocolError

LARGEST_VECTOR = 2**31


class Role(StrEnum):
    """What happens to an entry of a model."""

    TRAINED = "trained"
    """Changed by local training, exchanged."""
    BUFFER = "buffer"
    """State that training updates on the side; exchanged where floating, never averaged where integer."""
    FROZEN = "frozen"
    """Never changed; both sides have it from the initial parameters."""
    LOCAL = "local"
    """Personal to a site; never leaves it."""


@dataclass(frozen=True)
class Entry:
    """One named array of a model.

    Attributes:
        name: ``network/state-dict key``.
        shape: Shape of the array.
        dtype: NumPy name of the type, for instance ``float32``.
        role: What happens to it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_exchanged(self) -> bool:
        """Whether the entry is part of the exchanged vector."""
        return self.role is Role.TRAINED or (self.role is Role.BUFFER and self.dtype.startswith("float"))


@dataclass(frozen=True)
class Layout:
    """All entries of a model, trained ones first."""

    entries: tuple[Entry, ...]

    @cached_property
    def exchanged(self) -> tuple[Entry, ...]:
        """Entries of the exchanged vector, trained ones first."""
        kept = [entry for entry in self.entries if entry.is_exchanged]
        return tuple(sorted(kept, key=lambda entry: entry.role is not Role.TRAINED))

    @cached_property
    def size(self) -> int:
        """Length of the exchanged vector."""
        return sum(entry.size for entry in self.exchanged)

    @cached_property
    def trained_size(self) -> int:
        """Length of its first part, the trained parameters."""
        return sum(entry.size for entry in self.exchanged if entry.role is Role.TRAINED)

    def slices(self) -> Iterator[tuple[Entry, slice]]:
        """Yield each exchanged entry with its place in the exchanged vector."""
        start = 0
        for entry in self.exchanged:
            yield entry, slice(start, start + entry.size)
            start += entry.size

    def to_plain(self) -> list[list[Any]]:
        """Return the layout as plain data for JSON."""
        return [[entry.name, list(entry.shape), entry.dtype, entry.role.value] for entry in self.entries]

    @classmethod
    def from_plain(cls, plain: list[list[Any]]) -> "Layout":
        """Read what :meth:`to_plain` wrote.

        Raises:
            ProtocolError: The data is not a layout, or is larger than 2³¹ values.
        """
        try:
            entries = tuple(
                Entry(str(name), tuple(int(length) for length in shape), str(dtype), Role(role))
                for name, shape, dtype, role in plain
            )
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"the layout of the model cannot be read: {error}") from error
        layout = cls(entries)
        if any(length < 0 for entry in entries for length in entry.shape) or layout.size > LARGEST_VECTOR:
            raise ProtocolError(f"the layout has {layout.size} values; at most {LARGEST_VECTOR} are allowed")
        return layout
