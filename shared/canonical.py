"""One byte sequence for one value: canonical JSON and the hashes built on it.

Why: studies, plans and updates are compared, signed and cached by hash, so that both sides must write the
same bytes for the same value: keys sorted, no white space, UTF-8, no NaN, floats in Python's shortest form.
"""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canonical_json(value: Any) -> bytes:
    """Encode plain data (dict, list, str, int, float, bool, None) as canonical JSON.

    Raises:
        ValueError: A float is not finite.
        TypeError: A value is not plain data.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def hash_of(value: Any) -> str:
    """Return the SHA-256 of a plain value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def hash_of_vectors(vectors: dict[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of named arrays: names, dtypes, shapes and little-endian bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(vectors):
        array = np.ascontiguousarray(vectors[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(canonical_json([name, little.dtype.str, list(little.shape)]))
        digest.update(memoryview(little).cast("B"))
    return digest.hexdigest()
