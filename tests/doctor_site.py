"""A hospital's folder for the doctor's tests: real DICOM files, a label table, a site file, a study."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tiny_study
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dicom_factory import uid, write, write_labels, xray

from fedcad.client.doctor.isolated import Reporter
from fedcad.shared.certificates import (
    Authority,
    Member,
    make_authority,
    make_site_certificate,
    node_key_hash,
    pem_of,
)
from fedcad.shared.enrolment import Enrolment, file_text
from fedcad.shared.secret_files import write_secret
from fedcad.shared.signing import SigningKey

CLASSES = tiny_study.CLASSES


class Reports(Reporter):
    """Keeps what is reported, in this process."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)

    def report(self, name: str, value: Any) -> None:
        self.found[name] = value


def make_site(folder: Path, *, patients: int = 20, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write archive, labels.csv and site.yaml of a hospital; one image for each patient."""
    rows = []
    for number in range(patients):
        pixels = np.random.default_rng(number).integers(0, 4096, (24, 20)).astype(np.uint16)
        image = xray(pixels, number=number, PatientID=f"Secret{number}", WindowCenter=2048, WindowWidth=4096)
        write(folder / "archive" / f"Secret{number}.dcm", image)
        rows.append((uid(number), f"Secret{number}", classes[number % len(classes)]))
    write_labels(folder / "labels.csv", rows)
    (folder / "site.yaml").write_text("name: north\narchive: archive\nlabels: labels.csv\nstate: state\n")
    return folder


def write_study(folder: Path, **changes: Any) -> Path:
    """Write a small study."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_study.study_plain(**changes)))
    return path


def request_of(folder: Path, study: Path | None = None) -> dict[str, Any]:
    """Return what the doctor's processes are asked with."""
    return {
        "study": str(study or folder / "study.yaml"),
        "archive": str(folder / "archive"),
        "labels": str(folder / "labels.csv"),
        "state": str(folder / "state"),
        "site": "north",
        "threads": 1,
        "device": "cpu",
    }


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return every entry below a folder with size and time of modification."""
    found = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def enrol(folder: Path, *, address: str, now: datetime, days: int = 365, site: str = "north") -> Authority:
    """Make keys and an enrolment in a hospital's folder, with the real code; return the authority."""
    authority = make_authority("trial", now=now, days=3650)
    coordinator, signing = SigningKey.generate(), SigningKey.generate()
    node = ec.generate_private_key(ec.SECP384R1())
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    signing.save(keys / "signing.key")
    openssh = node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret(keys / "node.key", openssh)
    member = Member(site, signing.public, node_key_hash(node.public_key()), coordinator.public)
    certificate = make_site_certificate(authority, member, consortium="trial", now=now, days=days)
    content = {
        "consortium": "trial",
        "site": site,
        "address": address,
        "ca_pem": authority.pem,
        "certificate": pem_of(certificate),
        "issued": now.isoformat(),
        "expires": (now + timedelta(days=days)).isoformat(),
    }
    (folder / "enrolment.json").write_bytes(file_text(Enrolment.make(content, coordinator)))
    return authority
