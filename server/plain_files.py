"""Small JSON files that may be missing, torn or strange: what is wrong with one is said in one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedcad.shared.errors import CheckpointError

LARGEST_BYTES = 64 * 2**20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@contextmanager
def plain_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one sentence.

    Args:
        path: The file.
        remedy: What to do about it.

    Raises:
        CheckpointError: The block raised what damage raises.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:120] or type(error).__name__


def read_object(path: Path, *, empty_is_none: bool = False) -> dict[str, Any] | None:
    """Return a file's JSON object; None where there is no file, or, if so asked, nothing in it.

    Raises:
        OSError: It cannot be opened.
        ValueError: It holds something else, or is too large.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_BYTES)
    except FileNotFoundError:
        return None
    if empty_is_none and not content:
        return None
    plain = json.loads(content)
    if not isinstance(plain, dict):
        raise ValueError("it is not a JSON object")
    return plain
