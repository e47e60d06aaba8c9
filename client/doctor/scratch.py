"""A folder for pixels of patients that is gone afterwards, whatever ends the process.

It lies beside the state, on the disk that the hospital chose for such data, never in the system's /tmp.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcad.client.doctor.machine import existing

_PREFIX = ".fedcad-doctor-"


@contextmanager
def scratch_folder(state: Path) -> Iterator[Path]:
    """Make a private folder in the state folder, or where that will be made, and remove it at the end.

    What a killed doctor left there is removed first; a folder that a living one uses is locked.
    """
    place = existing(state)
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(place: Path) -> None:
    """Remove folders whose process is gone: the kernel has freed their lock."""
    for left in place.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)
