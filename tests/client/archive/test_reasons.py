"""Counting reasons; the error that carries one."""

from fedcad.client.archive.reasons import TEMPORARY, Reason, Reject, UnusableFile, count_reasons
from fedcad.shared.errors import ArchiveError


def test_counts_are_sorted_by_frequency_then_code():
    rejects = [
        Reject(reason=Reason(code), subject="", sentence="")
        for code in ("truncated", "no_label", "not_dicom")
    ]
    assert count_reasons([*rejects, rejects[0]]) == (
        (Reason.TRUNCATED, 2),
        (Reason.NO_LABEL, 1),
        (Reason.NOT_DICOM, 1),
    )


def test_the_error_is_an_archive_error_with_code_and_sentence():
    error = UnusableFile(Reason.TRUNCATED, "cut off")
    assert isinstance(error, ArchiveError) and str(error) == "truncated: cut off"
    assert error.reason not in TEMPORARY
