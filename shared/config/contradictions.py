"""What a simulation file and its study file say against each other, as far as the files alone can tell."""

from collections.abc import Iterator

from fedcad.shared.config.simulation import (
    Dirichlet,
    FeatureShift,
    Iid,
    MedMNISTData,
    PhantomData,
    QuantitySkew,
    SimulationConfig,
)
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.config.yaml_document import KeyPath

Contradiction = tuple[KeyPath, str]
"""Key of the simulation file, and the sentence."""


def contradictions(simulation: SimulationConfig, study: StudyConfig) -> Iterator[Contradiction]:
    """Yield each contradiction between a simulation and its study, at a key of the simulation file."""
    yield from _classes(simulation, study)
    yield from _external_sites(simulation)
    yield from _quorum(simulation, study)
    yield from _faults(simulation, study)


def _classes(simulation: SimulationConfig, study: StudyConfig) -> Iterator[Contradiction]:
    data = simulation.data
    if not isinstance(data, PhantomData | MedMNISTData):
        return  # only the label tables know
    given, wanted = data.classes, study.task.classes
    if set(given) != set(wanted):
        yield (
            ("data", "classes"),
            f"got {', '.join(given)}; the study's task.classes are {', '.join(wanted)}; "
            "name the same classes in both",
        )


def _external_sites(simulation: SimulationConfig) -> Iterator[Contradiction]:
    names = simulation.external_sites
    for position, name in enumerate(names):
        if name in names[:position]:
            yield (
                ("external_sites", position),
                f"got {name!r} a second time; allowed: each site once; remove it",
            )
    sites = _fixed_sites(simulation)
    if sites is not None and len(set(names)) >= sites:
        yield (
            ("external_sites",),
            f"got {len(set(names))} external sites of {sites}; "
            "allowed: fewer, so that a site is left to train",
        )


def _fixed_sites(simulation: SimulationConfig) -> int | None:
    """Return the number of sites where the partition states it."""
    partition = simulation.partition
    return partition.sites if isinstance(partition, Iid | Dirichlet | QuantitySkew | FeatureShift) else None


def _quorum(simulation: SimulationConfig, study: StudyConfig) -> Iterator[Contradiction]:
    sites = _fixed_sites(simulation)
    external = len(set(simulation.external_sites))
    left_out = 1 if simulation.leave_one_site_out else 0
    quorum = study.participation.quorum
    if sites is not None and external < sites < quorum + external + left_out:
        yield (
            ("partition", "sites"),
            f"got {sites} sites, of which {external} external and {left_out} left out at a time; "
            f"the study's participation.quorum is {quorum}, so no round could close; "
            "give more sites or lower it",
        )
        return
    yield from _enough_patients(simulation, study, quorum + external + left_out)


def _enough_patients(
    simulation: SimulationConfig, study: StudyConfig, needed: int
) -> Iterator[Contradiction]:
    if not isinstance(simulation.data, PhantomData):
        return
    minimum = max(simulation.minimum_patients, study.data.minimum_patients)
    patients = simulation.data.patients
    if needed * minimum > patients:
        yield (
            ("data", "patients"),
            f"got {patients}; {needed} sites of at least {minimum} patients are needed "
            f"(quorum, external and left-out sites); allowed: at least {needed * minimum}",
        )


def _faults(simulation: SimulationConfig, study: StudyConfig) -> Iterator[Contradiction]:
    for position, fault in enumerate(simulation.faults):
        for index, number in enumerate(fault.rounds):
            if number > study.rounds:
                yield (
                    ("faults", position, "rounds", index),
                    f"got {number}; the study has {study.rounds} rounds; allowed: at most {study.rounds}",
                )
        if fault.site in simulation.external_sites:
            yield (
                ("faults", position, "site"),
                f"got {fault.site!r}, an external site, which never trains; allowed: a site that trains",
            )
