"""Arrays in shared memory, so that parameters pass between processes without being serialised.

Why anonymous files (memfd) and not named shared memory: nothing is left behind by kill -9, and containers'
small ``/dev/shm`` does not limit the size of a model.
"""

import ctypes
import itertools
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
_ALIGNMENT = 64
_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""All pages are mapped at once where the system can: one by one takes several times longer."""
_numbers = itertools.count()


class SharedBlock:
    """A block of memory that other processes can map.

    Attributes:
        identity: Unique name within the process that made it.
        size: Bytes.
        views: What readers keep about arrays in it, by place; goes with the block.
    """

    def __init__(self, descriptor: int, size: int, identity: str, *, is_writable: bool = True) -> None:
        """Map an open file of at least ``size`` bytes; the block owns the descriptor."""
        self.identity = identity
        self.size = size
        self._descriptor = descriptor
        self.views: dict[Placement, Any] = {}
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
        self.memory = mmap.mmap(descriptor, size, flags=_FLAGS, prot=protection)

    @classmethod
    def create(cls, size: int) -> "SharedBlock":
        """Make a new block of zeros."""
        size = max(size, mmap.PAGESIZE)
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, size)
        return cls(descriptor, size, _new_identity())

    def rename(self) -> None:
        """Give the block a new identity before other values are written: readers must take it anew."""
        self.identity = _new_identity()
        self.views.clear()

    def lend(self) -> "ctypes.Array[ctypes.c_char]":
        """Return the block's memory as an object that lives as long as any view of it.

        A weak reference to it says whether somebody can still read the block, whatever became of the views.
        """
        return (ctypes.c_char * self.size).from_buffer(self.memory)

    def send(self, connection: Connection, process: int) -> None:
        """Hand the block to the process at the other end of a connection."""
        connection.send((self.identity, self.size))
        reduction.send_handle(connection, self._descriptor, process)

    @classmethod
    def receive(cls, connection: Connection, *, is_writable: bool = True) -> "SharedBlock":
        """Take a block that the other end sends.

        Args:
            connection: Where it comes from.
            is_writable: False maps it read-only: what several sites read, none of them can change.
        """
        identity, size = connection.recv()
        return cls(reduction.recv_handle(connection), size, identity, is_writable=is_writable)

    def __del__(self) -> None:
        """Close the descriptor; the memory goes when the last view of it has gone."""
        os.close(self._descriptor)


def _new_identity() -> str:
    return f"{os.getpid()}-{next(_numbers)}"


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedcad", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as stream:
        return os.dup(stream.fileno())


@dataclass(frozen=True)
class Placement:
    """Where one array lies in a block: name, dtype, shape, offset in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def view(self, block: SharedBlock) -> NDArray[Any]:
        """Return the array in a block, without copying."""
        return self.view_of(block.memory)

    def view_of(self, memory: Any) -> NDArray[Any]:
        """Return the array in a block's memory, or in what :meth:`SharedBlock.lend` returned."""
        return np.ndarray(self.shape, dtype=self.dtype, buffer=memory, offset=self.offset)


def place(arrays: Arrays, start: int = 0) -> tuple[tuple[Placement, ...], int]:
    """Lay arrays out one after another and return their places and the offset behind the last."""
    placements, offset = [], start
    for name, array in arrays.items():
        placements.append(Placement(name, array.dtype.str, array.shape, offset))
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return tuple(placements), offset


def write(arrays: Arrays, placements: tuple[Placement, ...], block: SharedBlock) -> None:
    """Copy arrays to their places."""
    for placement in placements:
        placement.view(block)[...] = arrays[placement.name]
