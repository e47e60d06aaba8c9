"""Tensors written to a file straight from their memory, and hashed at the same time.

Why not safetensors' own writer: it copies every tensor twice into memory before a byte is written, between
two rounds, while every site waits. The format is its own: an 8-byte length, a JSON header, the tensors one
after another in little-endian C order (https://huggingface.co/docs/safetensors, "Format").
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.shared.atomic_files import write_atomically

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors atomically and return the SHA-256 of the file.

    Args:
        path: File, replaced whole or not at all.
        tensors: Named tensors of any shape; views and shared memory are written out.

    Raises:
        ValueError: A tensor's type cannot be written.
    """
    # Widest types first, so that every tensor starts at a multiple of its item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    parts = [_header(tensors, names), *(_bytes_of(tensors[name]) for name in names)]

    def write(stream: IO[bytes]) -> None:
        for part in parts:
            stream.write(part.data)

    # Beside the disk's work: hashing takes as long, and a coordinator writes while every site waits.
    with ThreadPoolExecutor(1) as hasher:
        digest = hasher.submit(_hash, parts)
        write_atomically(path, write)
    return digest.result()


def _hash(parts: list[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor], names: list[str]) -> NDArray[np.uint8]:
    described: dict[str, Any] = {}
    start = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} is {tensor.dtype}; expected one of {[str(each) for each in _DTYPES]}")
        end = start + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return np.frombuffer(len(text).to_bytes(8, "little") + text, dtype=np.uint8)


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    """Return a tensor's bytes, without a copy where it is contiguous."""
    array = tensor.detach().cpu().contiguous().numpy()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8)
