import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict

from fedcad.shared.flower_records import array_record
from fedcad.simulations.engines.packing import arrays_of, borrow, layout_arrays, pack, unpack, write_arrays
from fedcad.simulations.engines.shared_arrays import SharedBlock

CONTENT = RecordDict(
    {
        "vectors": array_record({"model": np.arange(4, dtype=np.float32), "control": np.ones(2, np.float32)}),
        "statistics": array_record({"test": np.arange(6, dtype=np.int64).reshape(2, 3)}),
        "header": ConfigRecord({"json": "{}", "delay": 1.5, "flag": True, "bytes": b"\0x"}),
    }
)


def packed(content):
    arrays = arrays_of(content)
    places, size = layout_arrays(arrays)
    block = SharedBlock.create(size)
    write_arrays(arrays, places, block)
    return pack(content, places), block


def test_content_survives():
    description, block = packed(CONTENT)
    for copy in (True, False):
        found = unpack(description, block, copy=copy)
        assert set(found) == set(CONTENT)
        assert dict(found.config_records["header"]) == dict(CONTENT.config_records["header"])
        for name, record in CONTENT.array_records.items():
            assert list(found.array_records[name]) == list(record)
            for key, array in record.items():
                values = found.array_records[name][key].numpy()
                assert np.array_equal(values, array.numpy())
                assert not values.flags.writeable


def test_copies_do_not_follow_the_block_and_views_do():
    description, block = packed(CONTENT)
    copies, views = (unpack(description, block, copy=copy) for copy in (True, False))
    block.memory[:] = bytes(len(block.memory))
    assert copies.array_records["vectors"]["model"].numpy().sum() == 6
    assert views.array_records["vectors"]["model"].numpy().sum() == 0


def test_content_without_arrays_needs_no_block():
    content = RecordDict({"refusal": ConfigRecord({"json": "x"}), "vectors": array_record({})})
    places, size = layout_arrays(arrays_of(content))
    assert size == 0
    found = unpack(pack(content, places), None, copy=True)
    assert set(found) == {"refusal", "vectors"}
    assert len(found.array_records["vectors"]) == 0


def test_a_borrowed_block_is_read_until_the_last_view_has_gone():
    description, block = packed(CONTENT)
    content, reader = borrow(description, block)
    values = content["vectors"]["model"].numpy()
    assert np.array_equal(values, CONTENT.array_records["vectors"]["model"].numpy())
    assert not values.flags.writeable
    part = torch.from_numpy(values[1:])
    del content, values
    # Not in the assertion itself: pytest would keep the object alive.
    is_read = reader() is not None
    assert is_read, "a view of a view still reads"
    del part
    assert reader() is None


def test_one_place_of_a_block_is_one_array_so_that_its_hash_is_remembered():
    description, block = packed(CONTENT)
    first, second = (unpack(description, block, copy=False) for _ in range(2))
    assert first.array_records["vectors"] is not second.array_records["vectors"]
    assert first.array_records["vectors"]["model"] is second.array_records["vectors"]["model"]
