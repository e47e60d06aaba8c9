"""Lookup tables of DICOM: Modality LUT and VOI LUT items, PS3.3 C.11.1 and C.11.2."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedcad.client.archive.header import PARSE_FAILURES, quiet_parser
from fedcad.client.archive.reasons import Reason, UnusableFile


@dataclass(frozen=True)
class Lookup:
    """One table.

    Attributes:
        first: Input value that maps to the first entry; lower inputs map there too.
        values: Entries, float64, shape (entries,); inputs beyond the end map to the last.
        bits: Bits of an entry.
    """

    first: int
    values: NDArray[np.float64]
    bits: int

    def apply(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map integer-valued inputs of any shape; fractions are rounded."""
        index = np.clip(np.rint(inputs) - self.first, 0, len(self.values) - 1).astype(np.int64)
        outputs: NDArray[np.float64] = self.values[index]
        return outputs


def read_lookup(item: Dataset, *, signed: bool, byte_order: str) -> Lookup:
    """Read LUT Descriptor and LUT Data.

    Args:
        item: Item of a Modality LUT Sequence or VOI LUT Sequence.
        signed: Whether the table's inputs may be negative (then the first input is two's complement).
        byte_order: ``<`` or ``>``, of tables stored as words.

    Raises:
        UnusableFile: The descriptor contradicts the data.
    """
    try:
        with quiet_parser():
            entries, first, bits = (int(value) for value in item.LUTDescriptor)
            data = item.LUTData
    except PARSE_FAILURES as error:
        raise UnusableFile(Reason.INVALID_TRANSFORM, "a lookup table cannot be read") from error
    entries = (entries & 0xFFFF) or 65536  # 0 stands for 65536, PS3.3 C.11.1.1
    if signed and first > 32767:
        first -= 65536
    if not signed and first < 0:
        first += 65536
    values = _entries(data, entries, byte_order)
    if not 8 <= bits <= 16 or len(values) != entries or values.max() > 2**bits - 1:
        raise UnusableFile(
            Reason.INVALID_TRANSFORM,
            f"a lookup table declares {entries} entries of {bits} bits and has {len(values)} others",
        )
    return Lookup(first, values, bits)


def _entries(data: object, entries: int, byte_order: str) -> NDArray[np.float64]:
    """Return table entries from words given as bytes (8 or 16 bits each) or as numbers."""
    if isinstance(data, bytes):
        if len(data) % 2:
            return np.empty(0)
        # 8-bit entries may be packed two to a word; an odd number of them is padded.
        packed = len(data) < 2 * entries
        values = np.frombuffer(data, dtype=np.uint8 if packed else f"{byte_order}u2", count=-1)
        if packed and byte_order == ">":
            values = values.reshape(-1, 2)[:, ::-1].ravel()
        return values[:entries].astype(np.float64)
    return np.atleast_1d(np.asarray(data, dtype=np.float64)) % 65536
