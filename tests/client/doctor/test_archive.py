import os

import pytest
from dicom_factory import write_labels
from doctor_site import listing, make_site

from fedcad.client.doctor.archive import (
    Data,
    about,
    duration,
    judge_fit,
    judge_headers,
    judge_labels,
    reasons_text,
)
from fedcad.client.doctor.check import NotCheckable, Verdict
from fedcad.shared.errors import DataError

OK, WARNING, FAILED, SKIPPED = Verdict
NOTHING = {"usable": 0, "unusable": [], "seconds": 1.0}


def quiet(text):
    pass


def data_of(folder):
    return Data(folder / "archive", folder / "labels.csv")


def test_good_archive_in_a_process_of_its_own(tmp_path):
    make_site(tmp_path)
    os.mkfifo(tmp_path / "archive" / "pipe")  # opened, it would hang
    before = listing(tmp_path)
    data = data_of(tmp_path)
    findings = [data.archive(quiet), data.decoding(quiet), data.label_table(), data.fit(quiet)]
    assert [finding.verdict for finding in findings] == [OK] * 4
    assert "20 of 20" in findings[0].found
    assert "7 normal, 7 opacity, 6 nodule" in findings[2].found
    assert listing(tmp_path) == before
    assert "Secret" not in str(findings)


def test_absent_archive_and_labels_are_two_problems(tmp_path):
    data = data_of(tmp_path)
    archive = data.archive(quiet)
    assert archive.verdict is FAILED
    assert "site.yaml" in archive.remedy
    for check in (data.decoding, data.fit):
        with pytest.raises(NotCheckable):
            check(quiet)
    with pytest.raises(DataError, match="cannot be read"):
        data.label_table()


def headers(usable, unusable=0, seconds=0.1):
    others = [{"reason": "not_dicom", "count": unusable, "sentence": "the file is no DICOM file"}]
    return {"usable": usable, "unusable": others if unusable else [], "seconds": seconds}


@pytest.mark.parametrize(
    ("count", "found", "verdict"),
    [
        (0, NOTHING, FAILED),
        (5, headers(0, 5), FAILED),
        (5, headers(2, 3), WARNING),
        (5, headers(3, 2), OK),
        (5, headers(5), OK),
    ],
)
def test_headers(tmp_path, count, found, verdict):
    finding = judge_headers(tmp_path, {"count": count, "whole": True}, found)
    assert finding.verdict is verdict
    if found["unusable"]:
        assert "the file is no DICOM file" in finding.found


def test_long_first_index_is_foretold(tmp_path):
    # 300 headers in 3 s: 100 000 files in 1000 s.
    finding = judge_headers(tmp_path, {"count": 100_000, "whole": False}, headers(300, seconds=3.0))
    assert "more than 100000 files" in finding.found
    assert "about 17 min" in finding.found


@pytest.mark.parametrize(
    ("known", "same", "verdict"), [(0, 0, FAILED), (5, 0, FAILED), (5, 4, WARNING), (5, 5, OK), (10, 10, OK)]
)
def test_fit_of_labels_and_images(known, same, verdict):
    finding = judge_fit(10, known, same)
    assert finding.verdict is verdict
    assert bool(finding.remedy) == (verdict is not OK)


def test_rows_left_out_are_a_warning(tmp_path):
    path = write_labels(
        tmp_path / "l.csv", [("1.2", "P", "normal"), ("1.2", "P", "nodule"), ("1.3", "P", "normal")]
    )
    finding = judge_labels(path)
    assert finding.verdict is WARNING
    assert "1 normal" in finding.found
    assert "1 conflicting labels" in finding.found
    empty = judge_labels(write_labels(tmp_path / "e.csv", []))
    assert empty.verdict is FAILED


def test_a_column_of_names_is_not_shown(tmp_path):
    rows = [(f"1.{number}", f"P{number}", f"Mustermann^Erika{number}") for number in range(3)]
    finding = judge_labels(write_labels(tmp_path / "l.csv", rows))
    assert finding.verdict is FAILED
    assert "Mustermann" not in str(finding)
    finding = judge_labels(write_labels(tmp_path / "l.csv", [*rows, ("2.1", "P", "normal")]))
    assert "1 normal, 3 other labels" in finding.found
    assert "Mustermann" not in str(finding)


def test_most_frequent_reasons_come_first_and_all_are_counted():
    items = [{"count": n, "sentence": f"s{n}"} for n in (9, 5, 3, 2, 1)]
    assert reasons_text(items) == "9 because s9; 5 because s5; 3 because s3; 3 for other reasons"


def test_times_for_people():
    times = [0.01, 2.34, 50, 600, 7200]
    assert [duration(t) for t in times] == ["less than 0.1 s", "2.3 s", "50 s", "10 min", "2.0 h"]
    assert (about(0.01), about(600)) == ("less than 0.1 s", "about 10 min")
