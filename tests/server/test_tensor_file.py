"""Tensors in a file: safetensors reads what was written, the hash is the file's, nothing half is left."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from safetensors import safe_open
from safetensors.torch import load_file

from fedcad.server.tensor_file import write_tensors

DTYPES = st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_])
ARRAYS = stn.arrays(DTYPES, stn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))


@given(st.dictionaries(st.text(min_size=1, max_size=6), ARRAYS, max_size=5))
@settings(max_examples=80, deadline=None)
def test_safetensors_reads_the_same_bits(tmp_path_factory, arrays) -> None:  # type: ignore[no-untyped-def]
    arrays.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    digest = write_tensors(path, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    found = load_file(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].numpy().dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].numpy().tobytes() == array.tobytes()


def test_views_transposed_and_shared_tensors_are_written_out(tmp_path: Path) -> None:
    table = torch.arange(6.0).view(2, 3)
    tensors = {
        "table": table,
        "turned": table.T,
        "row": table[1],
        "again": table,
        "every": table.view(-1)[::2],
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: each.tolist() for name, each in found.items()} == {
        name: each.tolist() for name, each in tensors.items()
    }


def test_tensors_start_at_multiples_of_their_item_size(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(3, dtype=torch.uint8),
        "b": torch.ones(1, dtype=torch.int64),
        "c": torch.ones(1),
    }
    path = tmp_path / "x.safetensors"
    write_tensors(path, tensors)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0
    with safe_open(path, framework="pt") as opened:
        assert set(opened.keys()) == {"a", "b", "c"}


def test_a_type_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a is torch\.complex64"):
        write_tensors(path, {"a": torch.ones(1, dtype=torch.complex64)})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]
