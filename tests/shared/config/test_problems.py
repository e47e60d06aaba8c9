from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.config.problems import MOST_PROBLEMS_SHOWN, name_path, nearest, refuse
from fedcad.shared.config.yaml_document import Document, Problem

DOCUMENT = Document(Path("f.yaml"), {}, {(): 1}, ())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("faults", 0, "rounds", 1), "faults[0].rounds[1]"),
        (("a", "b c"), "a.'b c'"),
        (("a\x1b[31m",), "'a\\x1b[31m'"),
        (("k" * 100,), repr("k" * 64)),
    ],
)
def test_name_path(path: tuple[str | int, ...], text: str) -> None:
    assert name_path(path) == text


@pytest.mark.parametrize(
    ("word", "words", "found"),
    [
        ("sise", ["size", "square"], "size"),
        ("Local-Epochs", ["local_epochs", "local_steps"], "local_epochs"),
        ("gpu", ["cpu", "cuda"], ""),
        ("zzz", ["size"], ""),
        ("x", [], ""),
    ],
)
def test_nearest(word: str, words: list[str], found: str) -> None:
    assert nearest(word, words) == found


@given(st.lists(st.text(min_size=1), min_size=1))
def test_nearest_is_one_of_the_words_or_nothing(words: list[str]) -> None:
    assert nearest(words[0], words) in {"", *words}


@given(st.lists(st.integers(1, 99), min_size=1, max_size=MOST_PROBLEMS_SHOWN))
def test_problems_are_listed_in_order_of_line_and_none_is_lost(lines: list[int]) -> None:
    message = str(refuse(DOCUMENT, [Problem(line, ("k",), "wrong") for line in lines]))
    assert message.splitlines() == [f"f.yaml:{line}: k: wrong" for line in sorted(lines)]
