"""Each emulated hospital as a folder of its own: DICOM archive, label table, site file.

What a client reads here is what it reads in a real hospital: DICOM files in nested folders, labels as a RIS
exports them, and the hospital's own site file.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import parse_acquisition
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.datasets.rejection import Rejection
from fedcad.simulations.dicom_objects import derive_identity, encode_object
from fedcad.simulations.finished_folder import finished_folder
from fedcad.simulations.partition import Partition
from fedcad.simulations.scanner_emulation import ScannerProfile, emulate_scanner

WRITER_VERSION = 1
"""Raised whenever the same records would give other files, so that cached archives are written anew."""

Progress = Callable[[str, int, int], None]
"""Called with the site's name, records done, and records in all."""


@dataclass(frozen=True)
class SiteArchive:
    """One emulated hospital on disk.

    Attributes:
        name: Name of the site.
        folder: Its folder.
        site_file: Its site file, inside the folder.
        records: Number of DICOM objects.
        rejected: Records that could not be written, with reasons; also in ``rejected.csv``.
    """

    name: str
    folder: Path
    site_file: Path
    records: int
    rejected: tuple[Rejection, ...]


def write_archives(
    partition: Partition, *, root: Path, progress: Progress | None = None
) -> dict[str, SiteArchive]:
    """Write every site of a partition below a folder, or reuse what an earlier run wrote there.

    Guarantees:
        The same partition gives the same bytes. Interrupted writing (kill -9) leaves nothing that is taken
        for an archive. Several processes may write the same archives at once.

    Args:
        partition: Records by site.
        root: Folder of all archives; made if absent.
        progress: Told about every record.

    Returns:
        The archive of each site, by name. A site none of whose images can be read has 0 records.

    Raises:
        OSError: The folder cannot be written to (no permission, disk full).
    """
    return {
        name: _write_site(name, records, partition.scanners.get(name), root=root, progress=progress)
        for name, records in partition.sites.items()
    }


def archive_key(name: str, records: Sequence[Record], scanner: ScannerProfile | None) -> str:
    """Return the hash of everything that decides about a site's files, which is its folder's name."""
    facts = [
        [record.record_id, record.content_id, record.patient_id, record.label, dict(record.acquisition)]
        for record in records
    ]
    return hash_of([WRITER_VERSION, name, facts, scanner.key if scanner else None])


def _write_site(
    name: str,
    records: Sequence[Record],
    scanner: ScannerProfile | None,
    *,
    root: Path,
    progress: Progress | None,
) -> SiteArchive:
    folder = root / archive_key(name, records, scanner)

    def write(temporary: Path) -> dict[str, Any]:
        return _SiteWriter(name, temporary, scanner).write(records, progress)

    facts = finished_folder(folder, write)
    if progress is not None:
        progress(name, len(records), len(records))
    rejected = tuple(Rejection(bad["file"], bad["reason"]) for bad in facts["rejected"])
    return SiteArchive(name, folder, folder / "site.yaml", facts["records"], rejected)


class _SiteWriter:
    """Writes one site into an empty folder."""

    def __init__(self, name: str, folder: Path, scanner: ScannerProfile | None) -> None:
        self._name = name
        self._folder = folder
        self._scanner = scanner
        self._labels: list[tuple[str, str, str]] = []
        self._rejected: list[Rejection] = []
        self._must_retry = False

    def write(self, records: Sequence[Record], progress: Progress | None) -> dict[str, Any]:
        """Write all files and return the facts to keep."""
        (self._folder / "dicom").mkdir()
        for done, record in enumerate(records):
            if progress is not None:
                progress(self._name, done, len(records))
            self._write_or_reject(record)
        self._write_tables()
        return {
            "records": len(self._labels),
            "rejected": [asdict(bad) for bad in self._rejected],
            "retry": self._must_retry,
        }

    def _write_or_reject(self, record: Record) -> None:
        try:
            pixels = record.read_pixels()
        except OSError as error:
            # The disk's fault, perhaps passing: the archive is used now, and written anew the next time.
            self._must_retry = True
            self._rejected.append(Rejection(record.record_id, f"cannot be read ({type(error).__name__})"))
            return
        except DataError as error:
            self._rejected.append(Rejection(record.record_id, str(error)))
            return
        try:
            self._write_object(record, pixels)
        except DataError as error:
            self._rejected.append(Rejection(record.record_id, str(error)))

    def _write_object(self, record: Record, pixels: Any) -> None:
        identity = derive_identity(patient_id=record.patient_id, record_id=record.record_id, site=self._name)
        facts = record.acquisition
        if self._scanner is not None:
            pixels = emulate_scanner(pixels, profile=self._scanner, content_id=record.content_id, facts=facts)
            facts = self._scanner.acquisition(facts)
        content = encode_object(pixels, identity=identity, acquisition=parse_acquisition(facts))
        folder = self._folder / "dicom" / identity.patient_id / identity.study_uid
        folder.mkdir(parents=True)
        (folder / f"{identity.sop_uid}.dcm").write_bytes(content)
        self._labels.append((identity.sop_uid, identity.patient_id, record.label))

    def _write_tables(self) -> None:
        header = ("sop_instance_uid", "patient_id", "label")
        _write_csv(self._folder / "labels.csv", header, self._labels)
        rejected = ((bad.file, bad.reason) for bad in self._rejected)
        _write_csv(self._folder / "rejected.csv", ("file", "reason"), rejected)
        site = {"name": self._name, "archive": "dicom", "labels": "labels.csv", "state": "state"}
        (self._folder / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
