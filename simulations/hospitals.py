"""The emulated hospitals of a simulation: data set → partition → one DICOM archive each."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.errors import DataError
from fedcad.simulations.archive_writer import SiteArchive, write_archives
from fedcad.simulations.datasets.interface import DataSet, Record
from fedcad.simulations.datasets.registry import open_data_set
from fedcad.simulations.datasets.rejection import Rejection
from fedcad.simulations.partition import Partition, partition

Progress = Callable[[str, int, int | None, str], None]
"""Called with what is done, how many are done, how many there are (None: not known yet), and a detail."""

_READING = "reading the data set"
_WRITING = "writing hospitals' DICOM archives"
_REUSING = "reusing hospitals' DICOM archives"
_MOST_REASONS = 4


@dataclass(frozen=True)
class Hospitals:
    """Emulated hospitals on disk.

    Attributes:
        archives: Archive of each site, by name.
        excluded: Sources that became no site, with reasons.
        notes: What a reader of the results must know about data and partition.
        rejected: Every entry of the data set that was left out, with its reason.
    """

    archives: dict[str, SiteArchive]
    excluded: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    rejected: tuple[Rejection, ...] = ()


def build_hospitals(
    config: SimulationConfig, *, data: Path | None, root: Path, progress: Progress | None = None
) -> Hospitals:
    """Read the data set, divide it, and write every site's archive below ``root``, or reuse it.

    Raises:
        DataError: The data set cannot be read, or gives no site, or a named external site does not exist, or
            the archives cannot be written.
    """
    show = progress or _show_nothing
    data_set = open_data_set(config.data, data)
    records = _read(data_set, show)
    division = partition(
        records, config.partition, seed=config.partition_seed, minimum_patients=config.minimum_patients
    )
    archives = _write(division, root, show)
    empty = [(name, "none of its images can be read") for name, each in archives.items() if not each.records]
    usable = {name: archive for name, archive in archives.items() if archive.records}
    _require(usable, config, division.excluded)
    unwritten = [bad for each in archives.values() for bad in each.rejected]
    rejected = (*_rejected_by(data_set), *unwritten)
    notes = (*division.notes, *_rejection_note(rejected))
    return Hospitals(usable, (*division.excluded, *empty), notes, rejected)


def _show_nothing(part: str, done: int, total: int | None, detail: str) -> None:
    """Show no progress."""


def _read(data_set: DataSet, show: Progress) -> list[Record]:
    records: list[Record] = []
    show(_READING, 0, None, "")
    for record in data_set.records():
        records.append(record)
        show(_READING, len(records), None, "")
    if not records:
        reasons = _rejection_note(_rejected_by(data_set)) or ["its label tables have no rows"]
        raise DataError(
            f"the data set has no usable record: {reasons[0]}. Check --data and the simulation's data section"
        )
    show(_READING, len(records), len(records), "")
    return records


def _rejected_by(data_set: DataSet) -> Sequence[Rejection]:
    rejected: Sequence[Rejection] = getattr(data_set, "rejected", ())
    return rejected


def _write(division: Partition, root: Path, show: Progress) -> dict[str, SiteArchive]:
    """Write the archives, or reuse them, with one count over all sites."""
    total = sum(len(records) for records in division.sites.values())
    done_at: dict[str, int] = {}
    written = False

    def count(site: str, done: int, of_site: int) -> None:
        nonlocal written
        # An archive of an earlier run is only ever reported as a whole.
        written |= done < of_site
        done_at[site] = done
        if written:
            show(_WRITING, sum(done_at.values()), total, site)

    try:
        archives = write_archives(division, root=root, progress=count)
    except OSError as error:
        raise DataError(
            f"{root}: the hospitals' DICOM archives cannot be written ({error.strerror}); "
            "make room, or choose another folder with --archives"
        ) from error
    if not written:
        show(_REUSING, total, total, "")
    return archives


def _rejection_note(rejected: Sequence[Rejection]) -> list[str]:
    """Say how many images were left out, by the datasets' readers or while archives were written, and why."""
    if not rejected:
        return []
    reasons = Counter(_without_place(bad.reason) for bad in rejected).most_common()
    told = [f"{number} because: {reason}" for reason, number in reasons[:_MOST_REASONS]]
    if len(reasons) > _MOST_REASONS:
        told.append(f"{len(reasons) - _MOST_REASONS} more reasons")
    what = (
        "1 entry of the data set was"
        if len(rejected) == 1
        else f"{len(rejected)} entries of the data set were"
    )
    return [f"{what} left out ({'; '.join(told)}); the first: {rejected[0].file}"]


def _without_place(reason: str) -> str:
    """Take from a reason what differs from entry to entry, so that equal mistakes count as one."""
    plain = re.sub(r"^line \d+: ", "", reason)
    plain = re.sub(r"^(listed already) in line \d+$", r"\1", plain)
    return re.sub(r"^(the same bytes as) .*$", r"\1 an earlier file", plain)


def _require(
    archives: dict[str, SiteArchive], config: SimulationConfig, excluded: tuple[tuple[str, str], ...]
) -> None:
    if not archives:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in excluded) or "no source was found"
        raise DataError(f"the partition gives no site ({reasons})")
    named = {*config.external_sites, *(fault.site for fault in config.faults)}
    unknown = sorted(named - set(archives))
    if unknown:
        raise DataError(
            f"external_sites or faults name {', '.join(unknown)}; the partition gives {', '.join(archives)}"
        )
