"""How the patients of a data set become emulated hospitals. Always by patient; never splits one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.config.simulation import (
    ByAcquisition,
    ByColumn,
    ByFolder,
    Dirichlet,
    FeatureShift,
    Iid,
    PartitionConfig,
    QuantitySkew,
)
from fedcad.shared.errors import DataError
from fedcad.simulations.allocation import allocate_by_dirichlet, allocate_by_quantity, allocate_evenly
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.scanner_emulation import SCANNERS, ScannerProfile
from fedcad.simulations.site_names import name_sites

Patients = Mapping[str, tuple[Record, ...]]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Who holds what.

    Attributes:
        sites: Records by site name, both sorted; no patient is at two sites.
        excluded: Names of sources that became no site, with reasons.
        scanners: Emulated scanner by site name, only for the partition ``feature-shift``.
        notes: What a reader of the results must know about the partition.
    """

    sites: Mapping[str, tuple[Record, ...]]
    excluded: tuple[tuple[str, str], ...] = ()
    scanners: Mapping[str, ScannerProfile] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def partition(
    records: Sequence[Record], config: PartitionConfig, *, seed: int, minimum_patients: int
) -> Partition:
    """Divide records into sites.

    A patient with records of several classes is drawn by the most frequent one, and a patient with records
    at several values of a column or attribute stays whole at the most frequent one (ties: the first in
    alphabetical order); how many patients that concerns is said in the notes.

    Guarantees:
        Each record is at exactly one site, or its source is excluded with a reason. No patient is split.
        The result depends on the records, configuration and seed, not on the order of the records.

    Args:
        records: All records of the data set.
        config: The ``partition`` section of a simulation file.
        seed: Seed of the study.
        minimum_patients: Sites with fewer patients are left out, and named.

    Raises:
        DataError: No records, a record twice, an unknown column, or no site left.
    """
    patients = _group_by_patient(records)
    if isinstance(config, ByFolder | ByColumn | ByAcquisition):
        sources, notes = _natural_sources(patients, config)
        members = _members(sources)
    else:
        members, notes = _drawn_members(patients, config, seed=seed, minimum_patients=minimum_patients)
    result = _name_and_sift(patients, members, minimum_patients=minimum_patients, notes=notes)
    return _with_scanners(result) if isinstance(config, FeatureShift) else result


def _group_by_patient(records: Sequence[Record]) -> Patients:
    if not records:
        raise DataError("the data set holds no usable record; look at the rejected files and the labels")
    groups: dict[str, dict[str, Record]] = {}
    for record in records:
        groups.setdefault(record.patient_id, {})[record.record_id] = record
    if sum(len(group) for group in groups.values()) < len(records) or _is_shared(groups):
        raise DataError("the data set gives a record_id twice; every record needs its own")
    return {
        patient: tuple(record for _, record in sorted(groups[patient].items())) for patient in sorted(groups)
    }


def _is_shared(groups: Mapping[str, Mapping[str, Record]]) -> bool:
    names = [name for group in groups.values() for name in group]
    return len(set(names)) < len(names)


def _natural_sources(
    patients: Patients, config: ByFolder | ByColumn | ByAcquisition
) -> tuple[dict[str, str], list[str]]:
    """Return the source of each patient where the data themselves say it."""
    if isinstance(config, ByFolder):
        return _most_frequent(patients, lambda record: record.folder, "folder")
    if isinstance(config, ByAcquisition):
        attribute = config.attribute
        return _most_frequent(patients, lambda record: record.acquisition.get(attribute, ""), attribute)
    column = config.column
    known = sorted({name for group in patients.values() for record in group for name in record.columns})
    if column not in known:
        raise DataError(
            f"partition.column is {column!r}; the data set has the columns {', '.join(known) or '(none)'}"
        )
    return _most_frequent(patients, lambda record: record.columns.get(column, ""), column)


def _most_frequent(
    patients: Patients, value_of: Callable[[Record], str], what: str
) -> tuple[dict[str, str], list[str]]:
    sources, several = {}, 0
    for patient, group in patients.items():
        values = Counter(value_of(record) for record in group)
        several += len(values) > 1
        sources[patient] = _winner(values)
    note = (
        f"{several} patients have records at more than one {what}; each stays whole at the most frequent one"
    )
    return sources, [note] if several else []


def _members(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the patients of each source, in order of patient."""
    members: dict[str, list[str]] = {}
    for patient, source in sources.items():
        members.setdefault(source, []).append(patient)
    return members


def _winner(values: Counter[str]) -> str:
    """Return the most frequent value; an empty one only if there is no other."""
    return min(values, key=lambda value: (value == "", -values[value], value))


def _drawn_members(
    patients: Patients,
    config: Iid | Dirichlet | QuantitySkew | FeatureShift,
    *,
    seed: int,
    minimum_patients: int,
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the patients of each site where they are drawn; a site may be empty."""
    labels, notes = _most_frequent(patients, lambda record: record.label, "class")
    names = sorted(set(labels.values()))
    classes: NDArray[np.int64] = np.array([names.index(labels[patient]) for patient in patients])
    if isinstance(config, Dirichlet):
        allocation = allocate_by_dirichlet(
            classes, sites=config.sites, alpha=config.alpha, seed=seed, minimum_patients=minimum_patients
        )
    elif isinstance(config, QuantitySkew):
        allocation = allocate_by_quantity(classes, sites=config.sites, ratio=config.ratio, seed=seed)
    else:
        allocation = allocate_evenly(classes, sites=config.sites, seed=seed)
    digits = len(str(config.sites))
    drawn = [f"site-{number:0{digits}d}" for number in range(1, config.sites + 1)]
    sources = {patient: drawn[site] for patient, site in zip(patients, allocation, strict=True)}
    return {name: [] for name in drawn} | _members(sources), notes


def _name_and_sift(
    patients: Patients, members: Mapping[str, Sequence[str]], *, minimum_patients: int, notes: list[str]
) -> Partition:
    """Give the sources site names and leave out those that are too small or have no name."""
    excluded = {
        source: _shortfall(source, len(held), minimum_patients)
        for source, held in sorted(members.items())
        if not source or len(held) < minimum_patients
    }
    names = name_sites(source for source in members if source not in excluded)
    if not names:
        raise DataError(
            f"no site is left: {len(members)} sources, none with minimum_patients "
            f"{minimum_patients} patients. Lower minimum_patients, or divide the data in another way"
        )
    named = tuple((source or "(empty)", reason) for source, reason in excluded.items())
    renamed = [
        f"{source} is called {name}" for source, name in names.items() if not _is_recognised(source, name)
    ]
    sites = {
        name: tuple(record for patient in members[source] for record in patients[patient])
        for source, name in sorted(names.items(), key=lambda item: item[1])
    }
    return Partition(
        sites=sites,
        excluded=named,
        notes=(*notes, *([", ".join(renamed)] if renamed else [])),
    )


def _is_recognised(source: str, name: str) -> bool:
    """Whether a reader sees which source a site is: only case, blanks and punctuation differ."""
    return "".join(filter(str.isalnum, source.lower())) == "".join(filter(str.isalnum, name))


def _shortfall(source: str, patients: int, minimum_patients: int) -> str:
    if not source:
        return f"{patients} patients have no value"
    return f"{patients} patients, fewer than minimum_patients {minimum_patients}"


def _with_scanners(result: Partition) -> Partition:
    scanners = {name: SCANNERS[number % len(SCANNERS)] for number, name in enumerate(result.sites)}
    shared = len(result.sites) - len(SCANNERS)
    note = f"only {len(SCANNERS)} scanners are emulated, so {shared} sites have one that another site has too"
    notes = (*result.notes, note) if shared > 0 else result.notes
    return Partition(sites=result.sites, excluded=result.excluded, scanners=scanners, notes=notes)
