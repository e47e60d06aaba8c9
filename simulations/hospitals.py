"""The emulated hospitals of a simulation: data set → partition → one DICOM archive each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.errors import DataError
from fedcad.simulations.archive_writer import SiteArchive, write_archives
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.datasets.registry import open_data_set
from fedcad.simulations.datasets.rejection import Rejection
from fedcad.simulations.partition import partition

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many are done, how many there are."""


@dataclass(frozen=True)
class Hospitals:
    """Emulated hospitals on disk.

    Attributes:
        archives: Archive of each site, by name.
        excluded: Sources that became no site, with reasons.
        notes: What a reader of the results must know about data and partition.
    """

    archives: dict[str, SiteArchive]
    excluded: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def build_hospitals(
    config: SimulationConfig, *, data: Path | None, root: Path, progress: Progress | None = None
) -> Hospitals:
    """Read the data set, divide it, and write every site's archive below ``root``, or reuse it.

    Raises:
        DataError: The data set cannot be read, or gives no site, or a named external site does not exist.
    """
    data_set = open_data_set(config.data, data)
    records: list[Record] = list(data_set.records())
    if not records:
        raise DataError("the data set has no usable record; check --data and the simulation's data section")
    division = partition(
        records, config.partition, seed=config.partition_seed, minimum_patients=config.minimum_patients
    )
    archives = write_archives(division, root=root, progress=progress)
    empty = [(name, "none of its images can be read") for name, each in archives.items() if not each.records]
    usable = {name: archive for name, archive in archives.items() if archive.records}
    _require(usable, config, division.excluded)
    rejected = [
        *getattr(data_set, "rejected", ()),
        *(bad for each in archives.values() for bad in each.rejected),
    ]
    notes = (*division.notes, *_rejection_note(rejected))
    return Hospitals(usable, (*division.excluded, *empty), notes)


def _rejection_note(rejected: Sequence[Rejection]) -> list[str]:
    """Say how many images were left out, by the datasets' readers or while archives were written, and why."""
    if not rejected:
        return []
    first = rejected[0]
    return [
        f"{len(rejected)} entries of the data set were left out; the first: {first.file} ({first.reason})"
    ]


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
