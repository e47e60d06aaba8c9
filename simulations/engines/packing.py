"""Flower records in shared memory: arrays in a block, everything else as plain data."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedcad.shared.flower_records import LiveArray, records_of
from fedcad.simulations.engines.shared_arrays import Arrays, Placement, SharedBlock, place, write


@dataclass(frozen=True)
class Packed:
    """A message's content.

    Attributes:
        arrays: For each array record, where its arrays lie in the block that goes with it.
        texts: For each configuration record, its values.
    """

    arrays: Mapping[str, tuple[Placement, ...]]
    texts: Mapping[str, Mapping[str, Any]]


def arrays_of(content: RecordDict) -> dict[str, Arrays]:
    """Return the arrays of every array record."""
    return {
        name: {key: array.numpy() for key, array in record.items()}
        for name, record in records_of(content, ArrayRecord).items()
    }


def layout_arrays(records: Mapping[str, Arrays]) -> tuple[dict[str, tuple[Placement, ...]], int]:
    """Lay all arrays of all records out in one block and return their places and its size."""
    placements, offset = {}, 0
    for name, arrays in records.items():
        placements[name], offset = place(arrays, offset)
    return placements, offset


def pack(content: RecordDict, placements: Mapping[str, tuple[Placement, ...]]) -> Packed:
    """Describe a content whose arrays have been written to these places."""
    texts = {name: dict(record) for name, record in records_of(content, ConfigRecord).items()}
    return Packed(placements, texts)


def write_arrays(
    records: Mapping[str, Arrays], placements: Mapping[str, tuple[Placement, ...]], block: SharedBlock
) -> None:
    """Copy all arrays of all records to their places."""
    for name, arrays in records.items():
        write(arrays, placements[name], block)


def unpack(packed: Packed, block: SharedBlock | None, *, copy: bool) -> RecordDict:
    """Rebuild a content; its arrays are read-only views of the block, or copies.

    Views of one place are one :class:`LiveArray` however often they are asked for, so that the hash of a
    broadcast is computed once by each worker, not once for each site.
    """

    def live(placement: Placement) -> LiveArray:
        if block is None:
            raise ValueError("a content with arrays comes with a block")
        if copy:
            return _frozen(placement.view(block).copy())
        if placement not in block.views:
            block.views[placement] = _frozen(placement.view(block))
        known: LiveArray = block.views[placement]
        return known

    return _content(packed, live)


def borrow(packed: Packed, block: SharedBlock | None) -> tuple[RecordDict, Callable[[], object]]:
    """Rebuild a content as read-only views, and return a function that gives None once all have gone."""
    if block is None:
        return unpack(packed, None, copy=True), lambda: None
    memory = block.lend()
    content = _content(packed, lambda placement: _frozen(placement.view_of(memory)))
    return content, weakref.ref(memory)


def _content(packed: Packed, live: Callable[[Placement], LiveArray]) -> RecordDict:
    content = RecordDict()
    for name, placements in packed.arrays.items():
        record = ArrayRecord()
        for placement in placements:
            record[placement.name] = live(placement)
        content[name] = record
    for name, values in packed.texts.items():
        content[name] = ConfigRecord(dict(values))
    return content


def _frozen(values: NDArray[Any]) -> LiveArray:
    values.flags.writeable = False
    return LiveArray(values)
