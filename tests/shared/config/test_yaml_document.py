import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.config.yaml_document import (
    DEEPEST_NESTING,
    LARGEST_FILE_BYTES,
    Document,
    read_document,
)
from fedcad.shared.errors import ConfigError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes) -> Document:
    return read_document(write(folder, text))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.e3", 1000.0),
        ("-.5", -0.5),
        ("+2", 2),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("=", "="),
        ("[no, 1e2]", ["no", 100.0]),
    ],
)
def test_values_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"key: {text}\n").value["key"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_in_pythons_notation(number: float) -> None:
    from fedcad.shared.config.yaml_document import _compose, _Reader

    root = _compose(Path("x"), f"key: {number!r}")
    reader = _Reader()
    assert reader.mapping(root, ())["key"] == number  # type: ignore[arg-type]
    assert reader.problems == []


def test_keys_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    assert read(tmp_path, "1: a\nno: b\ntrue: c\n<<: d\n").value == {
        "1": "a",
        "no": "b",
        "true": "c",
        "<<": "d",
    }


def test_lines_of_keys_and_items(tmp_path: Path) -> None:
    document = read(tmp_path, "# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
    }
    assert document.line_of(("a", "c", 1, "absent", "deeper")) == 6


def test_duplicate_keys_keep_the_first_and_are_reported(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb: {c: 1,\n  c: 2}\na: 3\n")
    assert document.value == {"a": 1, "b": {"c": 1}}
    assert [(one.line, one.path, one.text) for one in document.problems] == [
        (3, ("b", "c"), "given twice (first in line 2); allowed: once; remove one"),
        (4, ("a",), "given twice (first in line 1); allowed: once; remove one"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".inf", "got .inf; allowed: a finite number"),
        ("-.INF", "got -.INF; allowed: a finite number"),
        (".NaN", "got .NaN; allowed: a finite number"),
        ("1e999", "got 1e999; allowed: a finite number"),
        ("9223372036854775808", "got an integer beyond ±9223372036854775807; allowed: a smaller one"),
        ("1" * 5000, "got an integer beyond ±9223372036854775807; allowed: a smaller one"),
        ('"\\0"', "got text with a control character; allowed: printable text"),
        ('"\\uD800"', "got text with a control character; allowed: printable text"),
    ],
)
def test_values_that_no_report_or_hash_can_hold(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = read(tmp_path, f"a: {text}\n").problems
    assert (problem.line, problem.path, problem.text) == (1, ("a",), message)


def test_largest_integer_is_allowed(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 9223372036854775807\n")
    assert document.value == {"a": 2**63 - 1}
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": the file is empty; allowed: a mapping of keys, such as 'name: my-study'"),
        ("# only\n---\n", ": the file is empty; allowed: a mapping of keys, such as 'name: my-study'"),
        ("- a\n", ":1: got a list; allowed: a mapping of keys, such as 'name: my-study'"),
        ("\nhello\n", ":2: got a single value; allowed: a mapping of keys, such as 'name: my-study'"),
        ("a: &x 1\n", ":1:4: got the anchor &x; allowed: plain values (no anchors and aliases)"),
        ("a: *x\n", ":1:4: got the alias *x; allowed: the value written out (no anchors and aliases)"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            ":1:4: got the tag 'tag:yaml.org,2002:python/object/apply:os.system'; "
            "allowed: plain values (no tags)",
        ),
        ("a: !x 1\n", ":1:4: got the tag '!x'; allowed: plain values (no tags)"),
        (
            "a: 1\n\tb: 2\n",
            ":2:1: not valid YAML while scanning for the next token: "
            "found character '\\t' that cannot start any token; indent with spaces, not tabs",
        ),
        (
            "a: [1\nb: 2\n",
            ":2:2: not valid YAML while parsing a flow sequence: expected ',' or ']', but got ':'",
        ),
        ("a: b: c\n", ":1:5: not valid YAML: mapping values are not allowed here"),
        (
            "a: 1\n---\nb: 2\n",
            ":2:1: not valid YAML expected a single document in the stream: but found another document",
        ),
        ("a: 1\nb: \x07\n", ":2: got the control character U+0007; allowed: printable text"),
        (
            b"a: 1\nb: caf\xe9\n",
            ":2: not UTF-8 text (byte 11); allowed: a YAML file saved as UTF-8",
        ),
        (
            "x" * (LARGEST_FILE_BYTES + 1),
            f": larger than {LARGEST_FILE_BYTES} bytes; allowed: a configuration file, not data",
        ),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_files_that_are_refused_whole(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    assert refusal(path) == f"{path}{message}"


def test_escape_of_no_character_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'a: "\\UFFFFFFFF"\n')
    assert refusal(path).startswith(f"{path}: not valid YAML (")


def test_deep_nesting_is_refused_before_python_gives_up(tmp_path: Path) -> None:
    path = write(tmp_path, "a: " + "[" * 20_000)
    assert refusal(path).endswith(f"nested deeper than {DEEPEST_NESTING} levels; allowed: less")


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").value == {"a": 1}


def test_windows_line_ends_count_once(tmp_path: Path) -> None:
    assert read(tmp_path, "a: 1\r\nb: 2\r\n").lines[("b",)] == 2


def test_absent_file_suggests_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "chest.yaml").write_text("a: 1")
    path = tmp_path / "chset.yaml"
    assert refusal(path) == (
        f"{path}: no such file; allowed: an existing YAML file; did you mean '{tmp_path / 'chest.yaml'}'?"
    )


def test_folders_pipes_and_impossible_names(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: got a folder; allowed: a YAML file"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == f"{tmp_path / 'pipe'}: not a regular file; allowed: a YAML file"
    assert "no such file" in refusal(tmp_path / "absent" / "x.yaml")
    for impossible in ("x" * 300, "a\0b"):
        with pytest.raises(ConfigError):
            read_document(tmp_path / impossible)


@settings(deadline=None, max_examples=150)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(min_codepoint=32, max_codepoint=126)), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_json_is_read_as_json(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    import json

    text = json.dumps({"key": value})
    found = read(tmp_path_factory.mktemp("json"), text).value["key"]
    assert json.dumps(found) == json.dumps(value)
    assert not (isinstance(found, float) and math.isnan(found))
