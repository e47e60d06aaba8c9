import csv
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom import dcmread

from fedcad.client.archive.labels import read_labels
from fedcad.shared.config.simulation import ByFolder, FeatureShift, ImageFolderData
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.errors import DataError
from fedcad.simulations.archive_writer import archive_key, write_archives
from fedcad.simulations.datasets.image_folder import ImageFolderDataSet
from fedcad.simulations.datasets.interface import Pixels, Record
from fedcad.simulations.partition import Partition, partition
from fedcad.simulations.scanner_emulation import SCANNERS

REAL = Path(__file__).parents[2] / ".." / "shared" / "data"


def _pixels(value: int) -> Pixels:
    return np.full((6, 5), value, dtype=np.uint8)


def _fail(error: Exception) -> Pixels:
    raise error


def _record(
    number: int, patient: str, label: str = "normal", read: Callable[[], Pixels] | None = None
) -> Record:
    return Record(
        record_id=f"a/{number}.png",
        content_id=f"{number:064x}",
        patient_id=patient,
        label=label,
        folder="a",
        read_pixels=read or partial(_pixels, number),
    )


RECORDS = (_record(1, "a/p1"), _record(2, "a/p1", "nodule, left"), _record(3, "a/p2"))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_archive_is_what_a_hospital_has(tmp_path: Path) -> None:
    archive = write_archives(Partition(sites={"north": RECORDS}), root=tmp_path)["north"]
    assert (archive.name, archive.records, archive.rejected) == ("north", 3, ())
    site = SiteConfig(**yaml.safe_load(archive.site_file.read_text()))
    assert (site.name, site.archive, site.labels, site.state) == ("north", "dicom", "labels.csv", "state")
    objects = {path: dcmread(path) for path in (archive.folder / "dicom").rglob("*.dcm")}
    for path, dataset in objects.items():
        assert path.relative_to(archive.folder / "dicom").parts == (
            dataset.PatientID,
            dataset.StudyInstanceUID,
            f"{dataset.SOPInstanceUID}.dcm",
        )
    table = read_labels(archive.folder / "labels.csv")
    assert table.rejects == ()
    by_instance = {dataset.SOPInstanceUID: dataset for dataset in objects.values()}
    found = {(by_instance[row.sop_instance_uid].pixel_array[0, 0], row.label) for row in table.rows}
    assert found == {(1, "normal"), (2, "nodule, left"), (3, "normal")}
    assert all(by_instance[row.sop_instance_uid].PatientID == row.patient_id for row in table.rows)
    assert len({row.patient_id for row in table.rows}) == 2


def test_written_once_and_the_same_anywhere(tmp_path: Path) -> None:
    whole = Partition(sites={"north": RECORDS})
    first = write_archives(whole, root=tmp_path / "one")["north"]
    unreadable = tuple(replace(record, read_pixels=partial(_fail, DataError("gone"))) for record in RECORDS)
    assert write_archives(Partition(sites={"north": unreadable}), root=tmp_path / "one")["north"] == first
    second = write_archives(whole, root=tmp_path / "two")["north"]
    assert _files(first.folder) == _files(second.folder)


def test_whatever_decides_about_the_files_is_in_the_key() -> None:
    changed = [
        archive_key("south", RECORDS, None),
        archive_key("north", RECORDS[:2], None),
        archive_key("north", RECORDS, SCANNERS[0]),
        archive_key("north", RECORDS, SCANNERS[1]),
    ]
    for change in (
        {"label": "other"},
        {"content_id": "f" * 64},
        {"patient_id": "a/p9"},
        {"record_id": "a/9.png"},
        {"acquisition": {"view": "PA"}},
    ):
        changed.append(archive_key("north", (replace(RECORDS[0], **change), *RECORDS[1:]), None))
    assert len({archive_key("north", RECORDS, None), *changed}) == len(changed) + 1


def test_images_that_cannot_be_read_are_rejected_and_nothing_else_is_lost(tmp_path: Path) -> None:
    deep = _record(5, "a/p3", read=partial(np.full, (2, 2), 5000, dtype=np.uint16))
    deep = replace(deep, acquisition={"bits_stored": "12"})
    broken = _record(4, "a/p3", read=partial(_fail, DataError("the image is damaged")))
    archive = write_archives(Partition(sites={"north": (*RECORDS, broken, deep)}), root=tmp_path)["north"]
    assert archive.records == 3
    assert [(bad.file, bad.reason) for bad in archive.rejected] == [
        ("a/4.png", "the image is damaged"),
        ("a/5.png", "grey values reach 5000; bits_stored 12 allows 4095"),
    ]
    with (archive.folder / "rejected.csv").open(newline="") as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == ["a/4.png", "a/5.png"]


def test_a_failing_disk_is_no_verdict_for_ever(tmp_path: Path) -> None:
    broken = _record(4, "a/p3", read=partial(_fail, FileNotFoundError("gone")))
    archive = write_archives(Partition(sites={"north": (*RECORDS, broken)}), root=tmp_path)["north"]
    assert (archive.records, archive.rejected[0].reason) == (3, "cannot be read (FileNotFoundError)")
    mended = replace(broken, read_pixels=partial(_pixels, 4))
    again = write_archives(Partition(sites={"north": (*RECORDS, mended)}), root=tmp_path)["north"]
    assert (again.folder, again.records, again.rejected) == (archive.folder, 4, ())


def test_a_site_without_a_readable_image_is_empty_and_says_so(tmp_path: Path) -> None:
    broken = _record(4, "a/p3", read=partial(_fail, DataError("damaged")))
    archive = write_archives(Partition(sites={"north": (broken,)}), root=tmp_path)["north"]
    assert (archive.records, len(archive.rejected)) == (0, 1)


def test_scanners_are_emulated(tmp_path: Path) -> None:
    config = FeatureShift(kind="feature-shift", sites=3)
    divided = partition((*RECORDS, _record(4, "a/p4")), config, seed=1, minimum_patients=1)
    archives = write_archives(divided, root=tmp_path)
    for name, scanner in divided.scanners.items():
        dataset = dcmread(next(archives[name].folder.rglob("*.dcm")))
        assert (dataset.Manufacturer, dataset.BitsStored) == (scanner.vendor, scanner.bits_stored)
        assert dataset.PhotometricInterpretation == scanner.photometric


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    write_archives(
        Partition(sites={"north": RECORDS}), root=tmp_path, progress=lambda *step: told.append(step)
    )
    assert told == [("north", 0, 3), ("north", 1, 3), ("north", 2, 3), ("north", 3, 3)]


@pytest.mark.real_data
def test_real_images_become_archives(tmp_path: Path) -> None:
    folders = ("cxr_cohen", "cxr_hannover", "cxr_guangzhou", "cxr_nih")
    if not all((REAL / folder).is_dir() for folder in folders):
        pytest.skip("the public images are not beside the repository")
    records = list(ImageFolderDataSet(ImageFolderData(kind="image-folder", pattern="cxr_*"), REAL).records())
    some = [record for number, record in enumerate(records) if number % 12 == 0]
    divided = partition(some, ByFolder(kind="folder"), seed=1, minimum_patients=1)
    archives = write_archives(divided, root=tmp_path)
    assert tuple(sorted(archives)) == tuple(sorted(folders))
    assert sum(archive.records for archive in archives.values()) == len(some)
    assert all(archive.rejected == () for archive in archives.values())
