"""Cases for tests that need no files."""

from pathlib import Path

from fedcad.client.archive.cases import Case
from fedcad.client.archive.facts import FACT_NAMES, ImageFacts
from fedcad.client.archive.index import IndexedImage

NUMBERS = {"rows": 8, "columns": 6, "bits_stored": 16}


def make_facts(**known: str) -> ImageFacts:
    return ImageFacts(**{name: NUMBERS.get(name, known.get(name, "")) for name in FACT_NAMES})


def make_image(number: int, patient: str, *, modality: str = "DX", view: str = "PA") -> IndexedImage:
    facts = make_facts(sop_instance_uid=f"{number:04d}", patient_id=patient, modality=modality, view=view)
    return IndexedImage(f"{number}.dcm", 1, 1, facts)


def make_case(number: int, patient: str, label: str) -> Case:
    return Case(f"{number:04d}", patient, label, Path(f"{number}.dcm"), 1, 1, make_facts())
