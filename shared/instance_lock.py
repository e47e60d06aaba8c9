"""One supervisor per folder: a lock that the operating system drops with its holder, however that ends."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from fedcad.shared.errors import UnsupportedError

_PRIVATE = 0o600
_POLL_S = 0.1
Sleep = Callable[[float], None]


class InstanceLock:
    """A held ``supervisor.lock``; its content is the holder's process id."""

    def __init__(self, path: Path, what: str) -> None:
        """Name the lock.

        Args:
            path: Lock file; its folder exists.
            what: What runs, for messages, for instance ``the hospital node of /srv/fedcad``.
        """
        self._path = path
        self._what = what
        self._descriptor: int | None = None

    def __enter__(self) -> "InstanceLock":
        """Take the lock.

        Raises:
            UnsupportedError: A living process holds it; the message names that process.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            holder = holder_of(self._path)
            named = "another process" if holder is None else f"process {holder}"
            raise UnsupportedError(
                f"{self._what} is running already ({named}); nothing was started. Stop that one first"
            ) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; the file stays, since removing it could let two processes hold two locks."""
        if self._descriptor is not None:
            os.truncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def holder_of(path: Path) -> int | None:
    """Return the id of the living process that holds a lock, or None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _written_pid(descriptor: int) -> int | None:
    try:
        plain = json.loads(os.pread(descriptor, 200, 0))
        pid = plain["pid"]
    except (ValueError, KeyError, TypeError):
        return None
    return pid if isinstance(pid, int) and pid > 1 else None


def stop_holder(path: Path, *, patience_s: float = 30.0, sleep: Sleep = time.sleep) -> int | None:
    """Ask the process that holds a lock to stop, and wait until it has.

    Returns:
        Its process id, or None where nobody held the lock.

    Raises:
        UnsupportedError: It did not stop in time, or belongs to another account.
    """
    holder = holder_of(path)
    if holder is None:
        return None
    try:
        os.kill(holder, signal.SIGTERM)
    except ProcessLookupError:
        return holder
    except PermissionError as error:
        raise UnsupportedError(
            f"process {holder} belongs to another account; stop it with the account that started it"
        ) from error
    for _ in range(int(patience_s / _POLL_S)):
        if holder_of(path) != holder:
            return holder
        sleep(_POLL_S)
    raise UnsupportedError(f"process {holder} has not stopped within {patience_s:g} s; look at its log")
