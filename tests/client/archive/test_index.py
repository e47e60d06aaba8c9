"""The index: incremental, resumable, read-only, and a reason for everything left out."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dicom_factory import CR, gradient, uid, write, xray

from fedcad.client.archive import index
from fedcad.client.archive.index import index_rejects, indexed_images, update_index
from fedcad.client.archive.reasons import Reason
from fedcad.shared.errors import ArchiveError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def make_archive(folder: Path, count: int = 5) -> Path:
    for number in range(count):
        write(
            folder / f"study{number}" / "image.dcm", xray(gradient(), number=number, PatientID=f"P{number}")
        )
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def reasons(database: Path) -> dict[str, Reason]:
    return {reject.subject: reject.reason for reject in index_rejects(database)}


def test_facts_are_those_of_the_header(tmp_path):
    elements = {
        "SOPClassUID": CR,
        "Modality": "CR",
        "PatientID": "Müller 7 ",
        "SpecificCharacterSet": "ISO_IR 100",
    }
    write(
        tmp_path / "a" / "x.dcm",
        xray(gradient(), number=3, bits_stored=12, **elements, KVP="110"),
        "implicit",
    )
    report = update_index(tmp_path / "a", tmp_path / "index.sqlite")
    (image,) = indexed_images(tmp_path / "index.sqlite")
    facts = image.facts
    assert (report.files, report.read, report.usable, report.rejects) == (1, 1, 1, ())
    assert (image.path, facts.sop_instance_uid, facts.patient_id, facts.modality) == (
        "x.dcm",
        uid(3),
        "Müller 7",
        "CR",
    )
    assert (facts.rows, facts.columns, facts.bits_stored, facts.kvp) == (8, 6, 12, "110")
    assert (facts.vendor, facts.model, facts.view, facts.burned_in) == ("Acme", "Ray 1", "PA", "")
    assert facts.transfer_syntax == "1.2.840.10008.1.2"


def test_a_second_update_opens_nothing_and_changes_are_followed(tmp_path):
    archive, database = make_archive(tmp_path / "a"), tmp_path / "index.sqlite"
    assert update_index(archive, database).read == 5
    again = update_index(archive, database)
    assert (again.read, again.unchanged, again.removed, again.usable) == (0, 5, 0, 5)
    shutil.rmtree(archive / "study0")
    write(archive / "study1" / "image.dcm", xray(gradient(), number=1, PatientID="other"))
    os.utime(archive / "study1" / "image.dcm", ns=(1, 1))
    third = update_index(archive, database)
    assert (third.read, third.unchanged, third.removed, third.usable) == (1, 3, 1, 4)
    assert {image.facts.patient_id for image in indexed_images(database)} == {"other", "P2", "P3", "P4"}


def test_the_archive_is_only_read(tmp_path):
    archive = make_archive(tmp_path / "a")
    before = snapshot(archive)
    update_index(archive, tmp_path / "index.sqlite")
    assert snapshot(archive) == before
    with pytest.raises(ArchiveError, match="inside the archive"):
        update_index(archive, archive / "index.sqlite")
    assert snapshot(archive) == before


def test_every_bad_file_has_its_reason(tmp_path):
    archive, database = make_archive(tmp_path / "a", 1), tmp_path / "index.sqlite"
    bad = {
        Reason.UNSUPPORTED_SOP_CLASS: {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
        Reason.NO_IDENTIFIERS: {"SOPInstanceUID": None},
        Reason.ABSURD_DIMENSIONS: {"Rows": 65535, "Columns": 65535},
        Reason.MISSING_PIXEL_ATTRIBUTES: {"BitsStored": None},
        Reason.MULTI_FRAME: {"NumberOfFrames": 3},
        Reason.UNSUPPORTED_BITS: {"HighBit": 3},
        Reason.UNSUPPORTED_COLOUR: {"PhotometricInterpretation": "HSV"},
    }
    for number, (reason, elements) in enumerate(bad.items()):
        write(archive / f"{reason}.dcm", xray(gradient(), number=100 + number, **elements))
    whole = (archive / "study0" / "image.dcm").read_bytes()
    (archive / "truncated").write_bytes(whole[:-3])
    (archive / "no_pixels").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00")])
    (archive / "broken_header").write_bytes(b"\0" * 128 + b"DICM" + b"garbage!" * 20)
    (archive / "not_dicom").write_text("a letter")
    (archive / "duplicate_instance").write_bytes(whole)
    (archive / "symbolic_link").symlink_to(tmp_path)
    (archive / "empty_file").touch()
    report = update_index(archive, database)
    found = reasons(database)
    duplicate = found.pop("study0/image.dcm")
    assert duplicate is Reason.DUPLICATE_INSTANCE  # the first path is "duplicate_instance"
    assert found.pop("empty_file") is Reason.NOT_DICOM
    assert {name.removesuffix(".dcm"): reason.value for name, reason in found.items()} == {
        **{reason.value: reason.value for reason in bad},
        **{name: name for name in ("truncated", "no_pixels", "broken_header", "not_dicom", "symbolic_link")},
    }
    assert report.usable == 1 and sum(count for _, count in report.rejects) == len(found) + 2
    text = repr(index_rejects(database))
    assert "Secret" not in text and "P1" not in text


def test_links_never_lead_out_of_the_archive(tmp_path):
    outside = make_archive(tmp_path / "outside")
    archive = make_archive(tmp_path / "a", 1)
    (archive / "folder").symlink_to(outside, target_is_directory=True)
    (archive / "file").symlink_to(outside / "study3" / "image.dcm")
    (archive / "loop").symlink_to(archive, target_is_directory=True)
    report = update_index(archive, tmp_path / "index.sqlite")
    assert (report.usable, report.rejects) == (1, ((Reason.SYMBOLIC_LINK, 3),))


def test_pipes_and_odd_names(tmp_path):
    archive = make_archive(tmp_path / "a", 1)
    os.mkfifo(archive / "pipe")
    (archive / "study0" / "image.dcm").rename(archive / os.fsdecode(b"\xff\xfe \n'.dcm"))
    update_index(archive, tmp_path / "index.sqlite")
    (image,) = indexed_images(tmp_path / "index.sqlite")
    assert (archive / image.path).is_file()


def test_an_unreadable_file_is_tried_again(tmp_path):
    archive, database = make_archive(tmp_path / "a", 1), tmp_path / "index.sqlite"
    update_index(archive, database)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE files SET reason = 'unreadable'")
    connection.close()
    assert update_index(archive, database).usable == 1


def test_a_missing_archive_or_damaged_database_is_an_archive_error(tmp_path):
    with pytest.raises(ArchiveError, match="not a folder"):
        update_index(tmp_path / "absent", tmp_path / "index.sqlite")
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ArchiveError, match="remove it"):
        update_index(make_archive(tmp_path / "a"), tmp_path / "bad.sqlite")
    with pytest.raises(ArchiveError, match="no index"):
        indexed_images(tmp_path / "none.sqlite")


def test_the_database_is_private(tmp_path):
    update_index(make_archive(tmp_path / "a"), tmp_path / "index.sqlite")
    assert (tmp_path / "index.sqlite").stat().st_mode & 0o777 == 0o600


KILLED = """
import os, signal, sys
from pathlib import Path
from fedcad.client.archive import index
index._CHUNK = 2
def progress(done, total):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
index.update_index(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)
"""


def test_killed_it_goes_on_where_it_was(tmp_path):
    archive, database = make_archive(tmp_path / "a", 9), tmp_path / "index.sqlite"
    killed = subprocess.run([sys.executable, "-c", KILLED, archive, database], check=False)
    assert killed.returncode == -signal.SIGKILL
    calls: list[tuple[int, int]] = []
    report = update_index(archive, database, progress=lambda done, total: calls.append((done, total)))
    assert (report.read, report.unchanged, report.usable, calls) == (5, 4, 9, [(5, 5)])


@pytest.mark.real_data
def test_foreign_archives_are_listed_not_loaded(tmp_path):
    for name, usable in (("dicom_pydicom_data", 1), ("dicom_multivendor", 0)):
        if not (SHARED / name).is_dir():
            pytest.skip(f"{SHARED / name} is absent")
        report = update_index(SHARED / name, tmp_path / f"{name}.sqlite")
        assert report.usable == usable
        assert report.usable + sum(count for _, count in report.rejects) == report.files


def _open_at_once(database, barrier, number):
    with closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
        # Before any of the processes may write, each has looked and found no tables.
        connection.set_trace_callback(lambda sql: barrier.wait(20) if sql == "BEGIN IMMEDIATE" else None)
        index._make_tables(connection)
        connection.set_trace_callback(None)
        connection.execute("INSERT INTO files (path, size, mtime_ns) VALUES (?, 1, 1)", (str(number),))


def test_processes_that_open_a_new_index_at_once_leave_each_others_rows(tmp_path):
    database, context = tmp_path / "index.sqlite", multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    openers = [context.Process(target=_open_at_once, args=(database, barrier, number)) for number in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0] * 4
    with closing(sqlite3.connect(database)) as connection:
        assert sorted(path for (path,) in connection.execute("SELECT path FROM files")) == list("0123")
