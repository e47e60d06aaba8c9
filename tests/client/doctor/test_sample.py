import pytest
from dicom_factory import write_labels
from doctor_site import Reports, listing, make_site, request_of

from fedcad.client.archive.reasons import Reason, Reject
from fedcad.client.doctor import sample
from fedcad.client.doctor.sample import summarise, take_sample
from fedcad.shared.errors import ArchiveError


def sampled(folder):
    reports = Reports()
    take_sample(request_of(folder), reports)
    assert "Secret" not in str(reports.found)
    return reports.found


def test_good_archive_is_read_decoded_and_left_alone(tmp_path):
    make_site(tmp_path)
    before = listing(tmp_path)
    found = sampled(tmp_path)
    assert found["files"] == {"count": 20, "whole": True}
    assert (found["headers"]["usable"], found["headers"]["unusable"]) == (20, [])
    assert found["labels"] == {"images": 20, "known": 20, "same_patient": 20}
    assert found["images"] == {"decoded": 12, "unusable": []}
    assert listing(tmp_path) == before


def test_bad_files_are_counted_by_reason_without_their_names(tmp_path):
    make_site(tmp_path, patients=4)
    (tmp_path / "archive" / "Secret letter.txt").write_text("Dear Mrs Secret" * 20)
    (tmp_path / "archive" / "Secret empty").touch()
    (tmp_path / "archive" / "Secret link").symlink_to("/etc/passwd")
    whole = (tmp_path / "archive" / "Secret0.dcm").read_bytes()
    (tmp_path / "archive" / "Secret0.dcm").write_bytes(whole[: len(whole) - 200])
    found = sampled(tmp_path)
    assert found["headers"]["usable"] == 3
    reasons = {item["reason"]: item["count"] for item in found["headers"]["unusable"]}
    assert sum(reasons.values()) == 4
    assert reasons["symbolic_link"] == 1
    assert found["images"]["decoded"] == 3


def test_labels_of_another_export(tmp_path):
    make_site(tmp_path, patients=4)
    write_labels(
        tmp_path / "labels.csv", [("2.25.1000", "Secret9", "normal"), ("2.25.1001", "Secret1", "normal")]
    )
    assert sampled(tmp_path)["labels"] == {"images": 4, "known": 2, "same_patient": 1}
    (tmp_path / "labels.csv").unlink()
    assert "labels" not in sampled(tmp_path)


def test_large_archive_is_sampled_evenly(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(200):
        (archive / f"{number:03}").touch()
    monkeypatch.setattr(sample, "MOST_HEADERS", 50)
    chosen, files, whole = sample._choose(archive, Reports())
    assert (len(chosen), len({found.path for found in chosen}), files, whole) == (50, 50, 200, True)
    # A sample of the first or the last files only would have a mean of 25 or 175.
    assert 70 < sum(int(found.path) for found in chosen) / 50 < 130


def test_walk_ends_when_its_time_is_over(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(30):
        (archive / str(number)).touch()
    monkeypatch.setattr(sample, "_TELL_EVERY", 10)
    monkeypatch.setattr(sample, "PART_S", -1.0)
    reports = Reports()
    _, files, whole = sample._choose(archive, reports)
    assert (files, whole) == (10, False)
    assert reports.told == ["10 files listed"]


def test_absent_archive_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="not a folder"):
        sampled(tmp_path)


def test_summary_counts_and_forgets_subjects():
    rejects = [
        Reject(reason=Reason.NOT_DICOM, subject="Secret1", sentence="no DICOM"),
        Reject(reason=Reason.NO_LABEL, subject="Secret2", sentence="no label"),
        Reject(reason=Reason.NO_LABEL, subject="Secret3", sentence="no label"),
    ]
    assert summarise(rejects) == [
        {"reason": "no_label", "count": 2, "sentence": "no label"},
        {"reason": "not_dicom", "count": 1, "sentence": "no DICOM"},
    ]
