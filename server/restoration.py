"""Restoration of a consortium from its backup, which may be damaged or hostile."""

import hashlib
import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fedcad.server.backup import DATABASE, MANIFEST, FileEntry, Manifest, Saved
from fedcad.server.consortium import CONFIG, Consortium, check_new
from fedcad.shared.atomic_files import sync_folder
from fedcad.shared.errors import CheckpointError, ConfigError
from fedcad.shared.secret_files import PRIVATE_FILE, PRIVATE_FOLDER, make_private_folder

_NOTHING = "nothing was restored. Use another backup"
_MOST_FILES = 1_000_000
_LARGEST_MANIFEST_BYTES = 256 * 2**20
_LONGEST_NAME = 500
_CHUNK_BYTES = 2**20
_EMPTY_FOLDERS = ("sites", "studies", "state", "flwr", "logs", "run")


def restore(source: Path, folder: Path) -> Saved:
    """Make a consortium's folder anew from a backup.

    Args:
        source: The backup.
        folder: A new or empty folder.

    Guarantees:
        The folder is whole, as the backup's manifest says, or as it was before. Nothing is written anywhere
        else. Keys get mode 0600, whatever the backup says.

    Raises:
        ConfigError: The folder is not empty, or there is no such backup.
        CheckpointError: The backup is damaged, or none of FedCAD's.
        IdentityError: The keys in it do not belong together.
    """
    check_new(folder)
    target = folder.absolute()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    beside.mkdir(mode=PRIVATE_FOLDER)
    try:
        manifest = _unpack(source, beside)
        _check_whole(beside)
        beside.chmod(0o755)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return Saved.of(manifest)


def _unpack(source: Path, target: Path) -> Manifest:
    """Unpack every member into an empty folder, and compare all with the manifest."""
    found: dict[str, tuple[str, int]] = {}
    manifest: Manifest | None = None
    with _opened(source) as archive:
        for member in archive:
            name = _checked_name(member, found)
            stream = archive.extractfile(member)
            if stream is None or manifest is not None:
                raise CheckpointError(f"{source}: {name!r} follows the manifest, or is no file; {_NOTHING}")
            if name == MANIFEST:
                manifest = _manifest(stream, source)
            else:
                found[name] = _write(stream, target / name)
    if manifest is None:
        raise CheckpointError(f"{source}: the manifest at its end is missing, so it was cut off; {_NOTHING}")
    _compare(manifest, found, source)
    _set_modes(target, manifest.files)
    return manifest


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    """Open a backup; what is wrong with it, now or while it is read, becomes one of our errors."""
    try:
        with tarfile.open(source, mode="r:", errorlevel=1) as archive:
            yield archive
    except tarfile.TarError as error:
        raise CheckpointError(f"{source}: damaged, or no backup of FedCAD; {_NOTHING}") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{source}: no such file; give a file made by: fedcad server backup") from error


def _checked_name(member: tarfile.TarInfo, found: dict[str, tuple[str, int]]) -> str:
    """Return a member's name, if it is a plain file that can only lie inside the folder and comes once."""
    name = member.name
    path = PurePosixPath(name)
    inside = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts
    if not member.isreg() or member.issparse() or not inside or not 0 < len(name) <= _LONGEST_NAME:
        raise CheckpointError(f"the member {name[:100]!r} is none that FedCAD writes; {_NOTHING}")
    if name in found or len(found) >= _MOST_FILES:
        raise CheckpointError(f"the member {name[:100]!r} comes twice, or there are too many; {_NOTHING}")
    return name


def _write(stream: IO[bytes], path: Path) -> tuple[str, int]:
    """Write a member into a new file; return the hash and size of its content."""
    path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _manifest(stream: IO[bytes], source: Path) -> Manifest:
    content = stream.read(_LARGEST_MANIFEST_BYTES + 1)
    try:
        if len(content) > _LARGEST_MANIFEST_BYTES:
            raise ValueError("too large")
        return Manifest.model_validate_json(content)
    except ValueError as error:
        raise CheckpointError(f"{source}: its manifest is damaged; {_NOTHING}") from error


def _compare(manifest: Manifest, found: dict[str, tuple[str, int]], source: Path) -> None:
    expected = {name: (entry.sha256, entry.size) for name, entry in manifest.files.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(f"{source}: {wrong[0][:100]!r}{more} is not as the manifest says; {_NOTHING}")


def _set_modes(target: Path, files: dict[str, FileEntry]) -> None:
    for name, entry in files.items():
        if not entry.private and not name.startswith("keys/"):
            (target / name).chmod(0o644)
    for name in _EMPTY_FOLDERS:
        make_private_folder(target / name)


def _check_whole(folder: Path) -> None:
    """Check that the keys belong together, that every record is whole, and that the database is sound."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"the backup holds no {CONFIG}, so it is no consortium's; {_NOTHING}")
    consortium = Consortium.load(folder)
    consortium.authority()
    consortium.listener_certificate()
    if consortium.signing_key().public != consortium.public_key():
        raise CheckpointError(f"the signing key in the backup does not fit signing.pub; {_NOTHING}")
    consortium.sites()
    database = folder / DATABASE
    if database.is_file():
        try:
            with closing(sqlite3.connect(database)) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"the database in the backup is damaged ({error}); {_NOTHING}") from error
        if verdict != "ok":
            raise CheckpointError(f"the database in the backup is damaged; {_NOTHING}")
