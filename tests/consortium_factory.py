"""A consortium and hospitals made by the real code, at a time that the test chooses."""

from datetime import UTC, datetime
from pathlib import Path

from fedcad.client.enrolment import request
from fedcad.client.hospital import Hospital
from fedcad.client.site_file import make_site, make_site_config
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.enrolment import enrol
from fedcad.shared.enrolment import Enrolment, file_text

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def found_consortium(folder: Path, name: str = "lungs") -> Consortium:
    return Consortium.create(folder / name, make_config(name, "fedcad.example.org:8443"), now=NOW)


def build_hospital(folder: Path, name: str = "north") -> Hospital:
    return make_site(
        folder / name,
        make_site_config({"name": name, "archive": "dicom", "labels": "labels.csv", "state": "state"}),
    )


def enrol_hospital(consortium: Consortium, hospital: Hospital, folder: Path) -> tuple[Enrolment, Path]:
    """Enrol a hospital and write the file that goes back to it."""
    enrolment = enrol(consortium, request(hospital, now=NOW), now=NOW)
    path = folder / f"enrolment-{enrolment.site}.json"
    path.write_bytes(file_text(enrolment))
    return enrolment, path


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
