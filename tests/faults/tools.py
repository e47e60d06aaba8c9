"""Means to disturb: a link that can be cut, a disk of bounded size, a clock that is wrong, a version."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from consortium_processes import Supervised

import fedcad.shared

_CHUNK_BYTES = 65536
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *spec) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, spec);
    if (!result && id == CLOCK_REALTIME) spec->tv_sec += SKEW;
    return result;
}
time_t time(time_t *out) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    if (out) *out = spec.tv_sec;
    return spec.tv_sec;
}
int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    tv->tv_sec = spec.tv_sec;
    tv->tv_usec = spec.tv_nsec / 1000;
    return 0;
}
"""


class Link:
    """A connection to a port of loopback that can be cut: nothing passes, and nobody is told.

    As with packets that are dropped: connections stay open and silent, new ones are accepted and silent.
    """

    def __init__(self, port: int) -> None:
        """Forward to a port; :attr:`port` is where to connect."""
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through."""
        self._open.clear()

    def mend(self) -> None:
        """Let everything through, and what was held back first."""
        self._open.set()

    def close(self) -> None:
        """Accept nobody any more."""
        self._open.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._open.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
        self._pump(near, far)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                self._open.wait()
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class SmallDisk:
    """A disk in memory, mounted on a folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)], check=True
        )

    def fill(self, left_bytes: int = 0) -> None:
        """Write until only so many bytes are left."""
        with self._filler.open("ab", buffering=0) as stream, suppress(OSError):
            while (free := shutil.disk_usage(self.folder).free - left_bytes) > 0:
                stream.write(bytes(min(free, 2**20)))

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small disk while a block runs."""
    disk = SmallDisk(folder, megabytes)
    try:
        yield disk
    finally:
        disk.unmount()


def can_mount(folder: Path) -> bool:
    """Whether this account can mount a small disk."""
    try:
        with small_disk(folder, 1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def wrong_clock(folder: Path, skew_s: int) -> dict[str, str] | None:
    """Return an environment whose processes see a wrong time of day; None where no compiler is here."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_CLOCK)
    command = ["cc", "-shared", "-fPIC", f"-DSKEW=({skew_s})", "-o", str(library), str(source), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"LD_PRELOAD": str(library)}


def other_version(folder: Path, version: str) -> Path:
    """Install the product under another version into an environment of its own; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    root = Path(fedcad.shared.__path__[0]).parent
    for name in ("server", "client", "shared", "simulations", "configs"):
        shutil.copytree(root / name, packages / "fedcad" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "fedcad" / "shared" / "version.py").write_text(
        f'"""Another."""\n\n__version__ = "{version}"\n'
    )
    beside = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    (packages / "rest.pth").write_text(f"import site; site.addsitedir({str(beside)!r})\n")
    python = folder / "bin" / "python"
    for program in Path(sys.executable).parent.glob("fl*r*"):
        lines = program.read_text().split("\n", 1)
        copy = folder / "bin" / program.name
        copy.write_text(f"#!{python}\n{lines[1]}")
        copy.chmod(0o755)
    return python


class Changed(Supervised):
    """A supervisor under another Python, or in another environment."""

    def __init__(
        self,
        side: str,
        folder: Path,
        *,
        python: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(side, folder)
        if python is not None:
            self._command[0] = str(python)
        self._environment = {**os.environ, **(environment or {})}

    def start(self) -> "Changed":
        with (self.folder / "terminal.txt").open("ab") as terminal:
            self.process = subprocess.Popen(
                self._command, stdout=terminal, stderr=terminal, env=self._environment
            )
        return self
