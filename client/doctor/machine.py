"""The machine: versions, processor, memory, graphics cards, room on the disk."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from fedcad.client.doctor.check import Check, Finding, failed, ok, warning
from fedcad.shared.errors import ConfigError
from fedcad.shared.version import __version__

GROUP = "Machine"
GIB = 2**30
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
LEAST_MEMORY_BYTES = 4 * GIB
"""Without a study in hand: what a small network with its libraries needs, with room for the system."""
LEAST_DISK_BYTES = 2 * GIB
"""Room for index, models and logs; a study's images come on top."""
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:==\s*([^\s;,]+))?")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def checks(device: Callable[[], str]) -> tuple[Check, ...]:
    """Return the checks of the machine, those of the disk apart.

    Args:
        device: Returns the site file's device.
    """
    return (
        Check(GROUP, "versions", lambda _: versions()),
        Check(GROUP, "processor", lambda _: processor()),
        Check(GROUP, "memory", lambda _: memory()),
        Check(GROUP, "GPU", lambda _: gpu(device())),
    )


def versions() -> Finding:
    """Whether Python and the packages that FedCAD needs at a hospital are there, in the required versions."""
    here = ".".join(str(part) for part in sys.version_info[:3])
    wrong = wrong_packages(metadata.requires("fedcad") or [])
    if not PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        wrong.insert(0, f"Python {here} (needed: 3.11, 3.12 or 3.13)")
    if wrong:
        return failed(
            f"FedCAD {__version__}: {'; '.join(wrong)}",
            f"Install into a fresh environment: pip install 'fedcad[client]=={__version__}'",
        )
    return ok(f"FedCAD {__version__}, Python {here}, flwr {metadata.version('flwr')}")


def wrong_packages(requirements: list[str]) -> list[str]:
    """Return the requirements of a node that are not met, in words.

    Args:
        requirements: As in a package's metadata; those of parts other than ``client`` do not count. Exact
            versions are compared (without a build's mark, as in 2.13.0+cpu), others only have to be there.
    """
    wrong = []
    for requirement in requirements:
        extra, parsed = _EXTRA.search(requirement), _REQUIREMENT.match(requirement)
        name, needed = parsed.groups() if parsed else ("", None)
        if name == "fedcad" or (extra and extra.group(1) != "client"):
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if needed and installed.partition("+")[0] != needed:
            wrong.append(f"{name} {installed} (needed: {needed})")
    return wrong


def processor() -> Finding:
    """How many cores this process may use."""
    cores = usable_cores()
    if cores < 2:
        return warning("1 core", "Training works and is slow; give the machine more cores.")
    return ok(f"{cores} cores")


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> Finding:
    """Whether there is memory to train a small network."""
    total, free = memory_bytes()
    found = f"{gib(free)} free of {gib(total)}"
    if free < LEAST_MEMORY_BYTES / 4:
        return failed(found, f"Free or add memory: at least {gib(LEAST_MEMORY_BYTES)} is recommended.")
    if free < LEAST_MEMORY_BYTES:
        return warning(found, f"Large networks need more; {gib(LEAST_MEMORY_BYTES)} is recommended.")
    return ok(found)


def memory_bytes() -> tuple[int, int]:
    """Return total and available memory, not more than a container's limit."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    try:
        # Memory that caches hold counts as available: the kernel gives it back.
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free = int(found.group(1)) * 1024 if found else free
        limit = int(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):
        return total, free
    return min(total, limit), min(free, limit)


def gpu(device: str) -> Finding:
    """Name the GPUs that torch sees, and whether the site's device is there and computes.

    Args:
        device: As in the site file.
    """
    # Here, not above: torch takes seconds, and most checks do without.
    import torch

    from fedcad.client.device import CPU, open_device

    try:
        chosen = open_device(device)
    except ConfigError as error:
        what, _, remedy = str(error).rpartition(". ")
        return failed(what, f"{remedy}.")
    if not torch.cuda.is_available():
        return ok("none: training runs on the processor")
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    names = ", ".join(
        f"cuda:{number} is {card.name} with {gib(card.total_memory)}" for number, card in enumerate(cards)
    )
    if chosen == CPU:
        return ok(f"{names}; training runs on the processor: device is cpu in site.yaml")
    return ok(f"{names}; training runs on {chosen}")


def disk(state: Path, needed_bytes: int, what: str) -> Finding:
    """Whether there is room where the state folder is or will be.

    Args:
        state: The state folder.
        needed_bytes: What is still to be written there.
        what: What that is, for the reader.
    """
    place = existing(state)
    free = shutil.disk_usage(place).free
    found = f"{gib(free)} free at {state}; {what}: {gib(needed_bytes)}"
    if free < needed_bytes:
        return failed(found, "Make room there, or name another folder in site.yaml: state.")
    if free < 2 * needed_bytes:
        return warning(found, "It is enough, with little to spare: make room there.")
    return ok(found)


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def gib(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
