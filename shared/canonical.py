"""One byte sequence for one value: canonical JSON and the hashes built on it.

Why: studies, plans and updates are compared, signed and cached by hash, so that both sides must write the
same bytes for the same value: keys sorted, no white space, UTF-8, no NaN, floats in Python's shortest form.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canonical_json(value: Any) -> bytes:
    """Encode plain data (dict with text keys, list, str, int, float, bool, None) as canonical JSON.

    Raises:
        ValueError: A float is not finite.
        TypeError: A value is not plain data, or a key is not text: JSON would make one of 1 and "1".
    """
    _check_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _check_keys(value: Any) -> None:
    """Refuse keys that are not text, at any depth."""
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"key {wrong[0]!r} is {type(wrong[0]).__name__}; canonical JSON needs text keys")
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        _check_keys(part)


def hash_of(value: Any) -> str:
    """Return the SHA-256 of a plain value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def hash_of_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's little-endian bytes, in C order."""
    contiguous = np.ascontiguousarray(array)
    little = contiguous.astype(contiguous.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()


def hash_of_hashes(described: Mapping[str, tuple[NDArray[Any], str]]) -> str:
    """Return the hash of named arrays whose own hashes are known: names, dtypes, shapes and hashes."""
    return hash_of(
        {name: [array.dtype.name, list(array.shape), digest] for name, (array, digest) in described.items()}
    )


def hash_of_vectors(vectors: Mapping[str, NDArray[Any]]) -> str:
    """Return the hash of named arrays."""
    return hash_of_hashes({name: (array, hash_of_array(array)) for name, array in vectors.items()})
