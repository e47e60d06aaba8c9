"""Who may read secrets, where FedCAD may write, and where it must not."""

import os
import shlex
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fedcad.client.doctor.check import Finding, failed, ok, warning
from fedcad.client.doctor.machine import existing

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MOST_NAMED = 5


def secrets(keys: Path) -> Finding:
    """Whether every file in the keys' folder is private to its owner, who runs this.

    Args:
        keys: Folder of the private keys.
    """
    if not keys.is_dir():
        return failed(
            f"there is no folder {keys}",
            "Put back keys/ from the backup, or make new ones: fedcad client request --new-keys.",
        )
    within = sorted(path for path in keys.rglob("*") if not path.is_symlink())
    return _private([keys, *within], "the keys are private to this account")


def folders(places: Iterable[Path]) -> Finding:
    """Whether folders with data of patients or of the node, as far as they exist, are private."""
    return _private([path for path in places if path.exists()], "private to this account")


def _private(paths: list[Path], good: str) -> Finding:
    """Judge modes and owners."""
    status = {path: path.stat() for path in paths}
    strange = [path for path in paths if status[path].st_uid != os.geteuid()]
    if strange:
        return failed(
            f"belongs to another account than the one that runs this: {_names(strange)}",
            "Run the doctor as the node's account, or change the owner: "
            f"sudo chown -R $(id -un) {_words(strange)}",
        )
    opened = [path for path in paths if status[path].st_mode & _OTHERS]
    if opened:
        return failed(
            f"other accounts have access: {_names(opened)}", f"Run: chmod -R go-rwx {_words(opened)}"
        )
    return ok(good)


def _names(paths: list[Path]) -> str:
    more = len(paths) - _MOST_NAMED
    return ", ".join(str(path) for path in paths[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _words(paths: list[Path]) -> str:
    """Return paths for a command line, those within others left out."""
    outer = [path for path in paths if not any(parent in paths for parent in path.parents)]
    return shlex.join(str(path) for path in outer)


def writable(state: Path) -> Finding:
    """Whether the state folder can be written, or made, by writing into it for a moment."""
    place = existing(state)
    if not place.is_dir():
        return failed(f"{place} is a file", "Name a folder in site.yaml: state.")
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return failed(
            f"{place} cannot be written ({error.strerror})",
            f"Give the node's account write access: sudo chown $(id -un) {shlex.quote(str(place))}",
        )
    return ok(f"{state} can be written" if place == state else f"{state} can be made")


def untouched(archive: Path, own: Iterable[Path]) -> Finding:
    """Whether nothing of FedCAD lies inside the archive, and whether this account could change it.

    Args:
        archive: Folder of the DICOM files.
        own: Folders that FedCAD writes.
    """
    inside = [path for path in own if path.resolve().is_relative_to(archive.resolve())]
    if inside:
        return failed(
            f"FedCAD's own files would lie inside the archive: {_names(inside)}",
            "Move the node's folder, or what site.yaml names, out of the archive.",
        )
    if archive.is_dir() and os.access(archive, os.W_OK):
        return warning(
            "FedCAD only reads the archive, but this account could change it",
            "Mount the archive read-only for this account, to be safe from any program.",
        )
    return ok("this account cannot change the archive")
