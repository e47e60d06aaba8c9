"""Files that only their owner may read: private keys and shared secrets."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedcad.shared.atomic_files import sync_folder
from fedcad.shared.errors import IdentityError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
LARGEST_SECRET_BYTES = 16_384
_OTHERS = 0o077


def write_secretly(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a new secret file with mode 0600, whatever the umask of the process.

    Args:
        path: The file, in a folder that exists.
        write: Writes the content to the open stream that it is given.

    Guarantees:
        The file is whole or absent, also after a power cut; at no moment can another account read it; an
        existing file is never replaced.

    Raises:
        IdentityError: There is a file of this name already.
    """
    neighbour = path.with_name(f".{path.name}.{secrets.token_hex(6)}.unfinished")
    descriptor = os.open(neighbour, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            os.fchmod(stream.fileno(), PRIVATE_FILE)
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # A link, unlike a renaming, refuses to replace.
        path.hardlink_to(neighbour)
    except FileExistsError as error:
        raise IdentityError(f"{path} exists already and is never overwritten; move it away first") from error
    finally:
        neighbour.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_secret(path: Path, content: bytes) -> None:
    """Write a new secret file, as :func:`write_secretly`.

    Raises:
        IdentityError: There is a file of this name already.
    """
    write_secretly(path, lambda stream: stream.write(content))


def read_secret(path: Path, what: str) -> bytes:
    """Read a secret file, if nobody but its owner can.

    Args:
        path: The file.
        what: What it holds, for messages, for instance ``the signing key``.

    Raises:
        IdentityError: It is absent, no plain file, too large, cannot be read, or other accounts have access.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IdentityError(f"{path}: {what} cannot be read ({error.strerror}); expected a file") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise IdentityError(f"{path}: expected a plain file with {what}")
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_mode & _OTHERS:
            raise IdentityError(
                f"{path}: {what} can be read by other accounts (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"expected mode 0600. If nobody else has seen it: chmod 600 {path}. Otherwise make a new one"
            )
        content = stream.read(LARGEST_SECRET_BYTES + 1)
    if len(content) > LARGEST_SECRET_BYTES:
        raise IdentityError(f"{path}: larger than {LARGEST_SECRET_BYTES} bytes, so not {what}")
    return content


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter; an existing one is made so."""
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    folder.chmod(PRIVATE_FOLDER)
