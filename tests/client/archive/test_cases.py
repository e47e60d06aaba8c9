"""Joining images and labels: every image and every row becomes a case or a reject."""

from pathlib import Path

import pytest
from case_factory import make_image
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.archive.cases import build_cases, require_patients
from fedcad.client.archive.labels import LabelRow, LabelTable
from fedcad.client.archive.reasons import Reason, Reject
from fedcad.shared.config.study import DataConfig
from fedcad.shared.errors import DataError

ONLY_DX = {"modalities": ("DX",)}


def join(images, rows, data=DataConfig(), **kwargs):  # noqa: B008 - frozen
    return build_cases(
        images, LabelTable(tuple(LabelRow(*row) for row in rows), ()), data, archive=Path("/a"), **kwargs
    )


def test_a_case_joins_image_and_label():
    table = join([make_image(1, "P1")], [("0001", "P1", "covid")])
    (case,) = table.cases
    assert (case.case_id, case.patient, case.label, case.path) == ("0001", "P1", "covid", Path("/a/1.dcm"))
    assert table.rejects == ()


@pytest.mark.parametrize(
    ("image", "rows", "data", "reason"),
    [
        (make_image(1, "P1"), [], {}, [Reason.NO_LABEL]),
        (make_image(1, "P2"), [("0001", "P1", "a")], {}, [Reason.PATIENT_MISMATCH]),
        (make_image(1, ""), [("0001", "P1", "a")], {}, [Reason.NO_PATIENT]),
        (
            make_image(1, "P1", modality="CR"),
            [("0001", "P1", "a")],
            {"modalities": ("DX",)},
            [Reason.OTHER_MODALITY],
        ),
        (make_image(1, "P1", view="LL"), [("0001", "P1", "a")], {"views": ("AP", "PA")}, [Reason.OTHER_VIEW]),
        (make_image(1, "P1"), [("0001", "P1", "z")], {}, [Reason.LABEL_NOT_IN_STUDY]),
        (make_image(1, "P1"), [("0002", "P1", "a")], {}, [Reason.NO_LABEL, Reason.UNKNOWN_INSTANCE]),
    ],
)
def test_what_is_left_out_has_a_reason(image, rows, data, reason):
    table = join([image], rows, DataConfig(**data), classes=("a", "b"))
    assert table.cases == ()
    assert [reject.reason for reject in table.rejects] == reason
    assert "P1" not in "".join(reject.sentence for reject in table.rejects)


def test_views_are_compared_without_case_and_empty_accepts_any():
    rows = [("0001", "P1", "a"), ("0002", "P1", "a")]
    images = [make_image(1, "P1", view="pa"), make_image(2, "P1", view="")]
    assert len(join(images, rows, DataConfig(views=("PA",))).cases) == 1
    assert len(join(images, rows).cases) == 2


def test_an_image_whose_labels_conflict_is_counted_once():
    conflict = Reject(reason=Reason.CONFLICTING_LABELS, subject="0001", sentence="")
    table = build_cases([make_image(1, "P1")], LabelTable((), (conflict,)), DataConfig(), archive=Path())
    assert table.reject_counts() == ((Reason.CONFLICTING_LABELS, 1),)


def test_too_few_patients_are_refused_with_numbers_and_reasons():
    table = join(
        [make_image(1, "P1"), make_image(2, "P1"), make_image(3, "P3")],
        [("0001", "P1", "a"), ("0002", "P1", "a")],
    )
    require_patients(table.cases, DataConfig(minimum_patients=1), site="north", left_out=table.rejects)
    with pytest.raises(DataError, match=r"site north has 1 usable patients; the study needs 2 .*1 no_label"):
        require_patients(table.cases, DataConfig(minimum_patients=2), site="north", left_out=table.rejects)


@given(st.data())
def test_nothing_is_lost_and_order_has_no_influence(data):
    images = [
        make_image(n, data.draw(st.sampled_from(["P", "Q", ""]))) for n in range(data.draw(st.integers(0, 6)))
    ]
    labelled = data.draw(st.sets(st.integers(0, 8)))
    rows = [(f"{n:04d}", data.draw(st.sampled_from(["P", "Q"])), "a") for n in sorted(labelled)]
    table = join(images, rows)
    unknown = sum(n >= len(images) for n in labelled)
    assert len(table.cases) + len(table.rejects) == len(images) + unknown
    assert join(data.draw(st.permutations(images)), rows[::-1]) == table
    assert [case.case_id for case in table.cases] == sorted(case.case_id for case in table.cases)
