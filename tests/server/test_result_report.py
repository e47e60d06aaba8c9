"""The page of a result: complete in one file, and hostile text stays text."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from fedcad.server.result_report import Curve, page

ROWS = [
    {"round": 1, "site": "a", "status": "counted", "reason": ""},
    {"round": 1, "site": "b", "status": "lost", "reason": "<script>alert(1)</script>"},
    {"round": 2, "site": "a", "status": "counted", "reason": ""},
    {"round": 2, "site": "b", "status": "counted", "reason": ""},
]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def make(curves: dict[str, list[Curve]] | None = None) -> str:
    return page("Result of <x>", "first & line", facts={"study": "<b>"}, rows=ROWS, curves=curves or {})


def test_the_page_says_who_took_part_and_needs_nothing_else() -> None:
    text = make()
    assert '<p class="first">first &amp; line</p>' in text
    assert '<td>a<td class="number">2 of 2<td>' in text
    assert "1 of 2<td>round 1: lost (&lt;script&gt;alert(1)&lt;/script&gt;)" in text
    assert "script" not in Tags(text).tags
    assert not re.search(r"(?:src|href)=", text)
    assert "No version has been validated yet." in text


def test_without_a_round_it_says_so() -> None:
    assert "No round has been closed yet." in page("t", "f", facts={}, rows=[], curves={})


def test_curves_are_in_their_place_by_hand() -> None:
    missing_in_two = Curve("<a>", [(0, 0.75), (1, 0.5), (3, 0.75), (4, 1.0)])
    text = make({"loss": [Curve("all", [(0, 1.0), (1, 0.5)]), missing_in_two]})
    (svg,) = re.findall(r"<svg.*?</svg>", text)
    drawing = ElementTree.fromstring(svg)
    lines = [line.get("points") for line in drawing.iter("polyline")]
    # 640 x 240 with margins of 40: x from 40 to 600 over versions 0 to 4, y from 40 (1.0) to 200 (0.5).
    assert lines == ["40.0,40.0 180.0,200.0", "40.0,120.0 180.0,200.0", "460.0,120.0 600.0,40.0"]
    assert "■ &lt;a&gt;" in text


@pytest.mark.parametrize("points", [[(0, 0.5)], [(0, 0.5), (1, 0.5)]])
def test_a_flat_or_single_point_curve_can_be_drawn(points: list[tuple[int, float]]) -> None:
    assert "nan" not in make({"loss": [Curve("all", points)]})


def test_the_sites_tests_are_a_table_and_missing_ones_are_named() -> None:
    tests = {
        "sites": {"<a>": {"cases": 12, "macro_auroc": 0.81234}, "b": {"cases": 3, "macro_auroc": None}},
        "union": {"cases": 15, "macro_auroc": 0.75},
        "without": {"c": "not <connected>"},
    }
    text = page("t", "f", facts={}, rows=[], curves={}, tests=tests)
    assert "&lt;a&gt;" in text
    assert '<td class="number">12<td class="number">0.812' in text
    assert "undefined" in text
    assert "all sites" in text
    assert "c: no test (not &lt;connected&gt;)" in text
    assert "Test of the model" not in page("t", "f", facts={}, rows=[], curves={})
