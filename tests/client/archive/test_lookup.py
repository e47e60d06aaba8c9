"""Lookup tables: descriptors, packing, ends."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from fedcad.client.archive.lookup import read_lookup
from fedcad.client.archive.reasons import UnusableFile


def item(descriptor: list[int], data: object) -> Dataset:
    dataset = Dataset()
    dataset.add_new(0x00283002, "US", descriptor)
    dataset.add_new(0x00283006, "OW" if isinstance(data, bytes) else "US", data)
    return dataset


def test_inputs_beyond_the_ends_map_to_the_ends():
    lookup = read_lookup(item([3, 10, 8], [1, 2, 3]), signed=False, byte_order="<")
    assert lookup.apply(np.array([-5.0, 10, 10.6, 12, 99])).tolist() == [1, 1, 2, 3, 3]


def test_zero_entries_mean_65536():
    data = np.arange(65536, dtype="<u2").tobytes()
    lookup = read_lookup(item([0, 0, 16], data), signed=False, byte_order="<")
    assert len(lookup.values) == 65536 and lookup.values[-1] == 65535


def test_a_signed_first_input_is_twos_complement():
    assert read_lookup(item([2, 65534, 8], [1, 2]), signed=True, byte_order="<").first == -2
    assert read_lookup(item([2, 65534, 8], [1, 2]), signed=False, byte_order="<").first == 65534


@pytest.mark.parametrize(
    ("data", "order"), [(b"\1\0\2\0\3\0", "<"), (b"\0\1\0\2\0\3", ">"), (b"\1\2\3\0", "<")]
)
def test_words_and_packed_bytes_in_both_orders(data, order):
    assert read_lookup(item([3, 0, 8], data), signed=False, byte_order=order).values.tolist() == [1, 2, 3]


def test_bytes_packed_in_big_endian_words():
    assert read_lookup(item([3, 0, 8], b"\2\1\0\3"), signed=False, byte_order=">").values.tolist() == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    "broken",
    [
        item([3, 0, 8], [1, 2]),
        item([2, 0, 8], [1, 256]),
        item([2, 0, 7], [1, 2]),
        item([2, 0], [1, 2]),
        item([4, 0, 8], b"\1"),
        item([3, 0, 8], b"\1\2\3"),
        Dataset(),
    ],
)
def test_contradictions_are_refused(broken):
    for order in "<>":
        with pytest.raises(UnusableFile):
            read_lookup(broken, signed=False, byte_order=order)
