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


class Norm(StrEnum):
    """Which normalisation layer an entry belongs to.

    Why in the layout: algorithms that keep normalisation at the site choose entries by it, and the
    coordinator, which never builds a model, can tell from a contract whether cases of a batch are coupled
    (``batch``), which patient-level privacy excludes.
    """

    NONE = "none"
    """Not of a normalisation layer."""
    BATCH = "batch"
    GROUP = "group"
    INSTANCE = "instance"
    """Also a group normalisation with one channel in each group."""
    LAYER = "layer"


@dataclass(frozen=True)
class Entry:
    """One named array of a model.

    Attributes:
        name: ``network/state-dict key``.
        shape: Shape of the array.
        dtype: NumPy name of the type, for instance ``float32``.
        role: What happens to it.
        norm: Kind of the normalisation layer that it belongs to.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    norm: Norm = Norm.NONE

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_exchanged(self) -> bool:
        """Whether the entry is part of the exchanged vector."""
        is_floating = self.dtype.startswith(("float", "bfloat"))
        return self.role is Role.TRAINED or (self.role is Role.BUFFER and is_floating)


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
        return [
            [entry.name, list(entry.shape), entry.dtype, entry.role.value, entry.norm.value]
            for entry in self.entries
        ]

    @classmethod
    def from_plain(cls, plain: list[list[Any]]) -> "Layout":
        """Read what :meth:`to_plain` wrote.

        Raises:
            ProtocolError: The data is not a layout, names an entry twice, or has more than 2³¹ values.
        """
        try:
            entries = tuple(
                _entry(name, shape, dtype, role, norm) for name, shape, dtype, role, norm in plain
            )
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"the layout of the model cannot be read: {error}") from error
        if len({entry.name for entry in entries}) != len(entries):
            raise ProtocolError("the layout of the model names an entry twice")
        layout = cls(entries)
        if layout.size > LARGEST_VECTOR:
            raise ProtocolError(f"the layout has {layout.size} values; at most {LARGEST_VECTOR} are allowed")
        return layout


def _entry(name: Any, shape: Any, dtype: Any, role: Any, norm: Any) -> Entry:
    """Return an entry from plain data, converting nothing silently."""
    if not isinstance(name, str) or not isinstance(dtype, str) or not isinstance(shape, list):
        raise TypeError("an entry is not a name, a list of lengths, a type, a role and a norm")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"a length in the shape of {name!r} is not a whole number from 0")
    return Entry(name, tuple(shape), dtype, Role(role), Norm(norm))
