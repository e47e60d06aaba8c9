"""Label tables: what is read, what is rejected, what is refused."""

import pytest
from dicom_factory import write_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcad.client.archive.labels import LabelRow, read_labels
from fedcad.client.archive.reasons import Reason
from fedcad.shared.errors import DataError


def reasons(table):
    return [(reject.reason, reject.subject) for reject in table.rejects]


def test_rows_are_stripped_and_sorted_and_extra_columns_ignored(tmp_path):
    path = tmp_path / "labels.csv"
    lines = [
        "\ufefflabel,Notes, Patient_ID ,sop_instance_uid",
        " covid , x,P1, 2.5 ",
        "normal,,P2,2.3",
        "",
        "",
    ]
    path.write_bytes("\r\n".join(lines).encode())
    table = read_labels(path)
    assert table.rows == (LabelRow("2.3", "P2", "normal"), LabelRow("2.5", "P1", "covid"))
    assert table.rejects == ()


def test_bad_rows_are_listed_with_their_line(tmp_path):
    rows = [
        ("1", "P1", "a"),
        ("1", "P1", "a"),
        ("2", "P1", ""),
        ("", "P1", "a"),
        ("3", "", "a"),
        ("4", "P2", "b"),
    ]
    table = read_labels(write_labels(tmp_path / "t.csv", rows))
    assert [row.sop_instance_uid for row in table.rows] == ["1", "4"]
    assert reasons(table) == [
        (Reason.DUPLICATE_LABEL_ROW, "line 3"),
        (Reason.EMPTY_LABEL, "line 4"),
        (Reason.INCOMPLETE_ROW, "line 5"),
        (Reason.INCOMPLETE_ROW, "line 6"),
    ]


@pytest.mark.parametrize("second", [("1", "P1", "b"), ("1", "P2", "a")])
def test_contradicting_rows_are_all_dropped(tmp_path, second):
    table = read_labels(write_labels(tmp_path / "t.csv", [("1", "P1", "a"), second, ("2", "P2", "a")]))
    assert [row.sop_instance_uid for row in table.rows] == ["2"]
    assert reasons(table) == [(Reason.CONFLICTING_LABELS, "1")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["sop_instance_uid, patient_id, label", "0 columns"]),
        (b"2.25.1,Smith,covid\n", ["missing or repeated: sop_instance_uid, patient_id, label", "3 columns"]),
        (b"sop_instance_uid;patient_id;label\n", ["commas"]),
        (b"sop_instance_uid,patient_id,label,label\n", ["repeated: label"]),
        ("sop_instance_uid,patient_id,label\n1,M\u00fcller,x\n".encode("latin-1"), ["not UTF-8"]),
        (b'sop_instance_uid,patient_id,label\n"1"x,P1,a\n', ["line 2", "not CSV"]),
    ],
)
def test_tables_that_cannot_be_used_are_refused_without_quoting_them(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert all(word in str(caught.value) for word in words)
    assert "Smith" not in str(caught.value)


def test_a_missing_or_huge_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv")
    path = write_labels(tmp_path / "t.csv", [("1", "P1", "a")])
    with pytest.raises(DataError, match="larger than 10 bytes"):
        read_labels(path, max_bytes=10)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_order_of_the_rows_has_no_influence(tmp_path, data):
    names = st.sampled_from(["1", "2", "3"])
    rows = data.draw(
        st.lists(st.tuples(names, st.sampled_from(["P", "Q"]), st.sampled_from(["a", "b"])), max_size=8)
    )
    shuffled = data.draw(st.permutations(rows))
    first, second = (read_labels(write_labels(tmp_path / "t.csv", table)) for table in (rows, shuffled))
    assert first.rows == second.rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(b"sop_instance_uid,patient_id,label\n" + content)
    try:
        table = read_labels(path)
    except DataError:
        return
    assert all(row.sop_instance_uid and row.patient_id and row.label for row in table.rows)
