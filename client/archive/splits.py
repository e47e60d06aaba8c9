"""Train, validation and test parts of one site, divided by patient.

Why by rank and not by a shuffled list: each patient's place follows from the study's seed, the site and the
patient alone, so that a patient who is added later moves hardly anybody else into another part.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from fedcad.client.archive.cases import Case
from fedcad.shared.canonical import canonical_json
from fedcad.shared.config.study import SplitConfig

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""Parts of a site's data."""


def split_cases(
    cases: Iterable[Case], split: SplitConfig, *, seed: int, site: str, external: bool = False
) -> dict[Part, tuple[Case, ...]]:
    """Divide cases by patient, stratified by the set of the patient's labels.

    Args:
        cases: Cases in any order.
        split: Fractions of patients.
        seed: The study's seed.
        site: Name of the site.
        external: The whole site is an external test set: every case is tested on.

    Returns:
        The cases of each part, sorted by case_id.

    Guarantees:
        No patient is in two parts. Every stratum has a training patient. Within a stratum, a part's number of
        patients differs from its share by less than 1, except for that one training patient.
        The same input gives the same parts in any order of cases and on any machine.

    References:
        Largest remainder (Hamilton) apportionment; ties go to the part that is furthest behind over the
        strata so far, so that many small strata do not all leave the test part empty.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    if external:
        return {"train": (), "validation": (), "test": tuple(cases)}
    part_of: dict[str, Part] = {}
    due = dict.fromkeys(PARTS, 0.0)
    for _, patients in sorted(_strata(cases).items()):
        ranked = sorted(patients, key=lambda patient: _rank(patient, seed, site))
        counts = _allocate(len(ranked), split, due)
        # Test takes from the far end: a boundary that moves then touches validation only.
        first, last = counts["train"], len(ranked) - counts["test"]
        for place, patient in enumerate(ranked):
            part_of[patient] = "train" if place < first else "validation" if place < last else "test"
    return {part: tuple(case for case in cases if part_of[case.patient] == part) for part in PARTS}


def _strata(cases: Iterable[Case]) -> dict[tuple[str, ...], list[str]]:
    """Group patients by the set of their labels."""
    labels: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        labels[case.patient].add(case.label)
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, names in labels.items():
        strata[tuple(sorted(names))].append(patient)
    return strata


def _rank(patient: str, seed: int, site: str) -> bytes:
    """Return a patient's place in the order of its stratum."""
    return hashlib.sha256(canonical_json([seed, "split", site, patient])).digest()


def _allocate(patients: int, split: SplitConfig, due: dict[Part, float]) -> dict[Part, int]:
    """Share one stratum's patients; ``due`` carries what each part is behind over the strata so far."""
    quotas: dict[Part, float] = {part: patients * getattr(split, part) for part in PARTS}
    counts = {part: int(quotas[part] + 1e-9) for part in PARTS}
    counts["train"] = max(counts["train"], 1)
    while (total := sum(counts.values())) != patients:
        step = 1 if total < patients else -1
        remainders = {part: step * (quotas[part] - counts[part]) for part in PARTS}
        allowed = [part for part in PARTS if quotas[part] > 0 and counts[part] + step >= (part == "train")]
        chosen = max(allowed, key=lambda part: (round(remainders[part], 9), round(step * due[part], 9)))
        counts[chosen] += step
    for part in PARTS:
        due[part] += quotas[part] - counts[part]
    return counts
