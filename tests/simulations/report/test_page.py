"""The page holds everything, escapes everything and asks for nothing."""

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from run_folder_factory import SitePlan, write_run

from fedcad.simulations.report.page import render_page
from fedcad.simulations.report.run_folder import Journal, Run, read_run

HOSTILE = "<script>alert('x')</script>\"&$_\u202e"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Outline(HTMLParser):
    """Collects what the tests ask about, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def words(page: str) -> str:
    return " ".join(" ".join(outline(page).text).split())


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def test_page_has_no_external_references_and_no_scripts(page: str) -> None:
    for tag, attributes in outline(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                assert re.match(r"(data:image/png;base64,|#)", value or "")
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]+", "", page))
    assert "default-src 'none'" in page


def test_links_of_the_contents_lead_somewhere(page: str) -> None:
    tags = outline(page).tags
    identities = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    links = [(attributes["href"] or "")[1:] for tag, attributes in tags if tag == "a"]
    assert len(links) == 11
    assert set(links) <= set(identities)


def test_headings_do_not_skip_levels_and_pictures_have_alternatives(page: str) -> None:
    tags = outline(page).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 9
    assert all(len(image["alt"] or "") > 20 for image in images)


def test_first_lines_say_what_matters_most(page: str) -> None:
    start = words(page)[:1500]
    assert "3 of 4 training sites missed rounds: kigali (2 of 12)" in start
    assert "Not for clinical use." in start
    assert "No privacy mechanism: the model and updates are not protected." in start
    assert "fedavg over 4 training sites, covid-net with 183,427 parameters" in start


def test_undefined_metrics_say_why(page: str) -> None:
    text = words(page)
    assert (
        "quito is undefined: all 16 test cases are normal: nothing to tell apart. It is not in the mean."
        in text
    )
    assert "undefined no test case is opacity" in text
    assert "23 of 44 cases are normal" in text


def test_rejections_and_losses_are_told_with_reasons(page: str) -> None:
    text = words(page)
    assert "truncated pixel data 2" in text
    assert "late past the deadline of 60 s 1 min 30 s" in text
    assert "nuuk (3 patients, minimum_patients is 10)" in text


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    site = SitePlan(HOSTILE, 80, (0.4, 0.3, 0.3), vendor=HOSTILE)
    changes = {
        "simulation": HOSTILE,
        "study": HOSTILE,
        "description": HOSTILE,
        "reason": HOSTILE,
        "status": "stopped",
        "excluded_sites": [{"name": HOSTILE, "reason": HOSTILE}],
        "algorithm": HOSTILE,
        "model_sha256": HOSTILE,
    }
    folder = tmp_path / "run"
    folder.mkdir()
    # The name cannot be a folder's, so there are no baselines on disk.
    write_run(folder, sites=(site,), rounds=2, baselines=(), changes=changes)
    (folder / "environment.json").write_text('{"</pre><script>": "<img src=x onerror=y>"}')
    run = read_run(folder)
    page = render_page(run, {})
    assert "<script>" not in page
    assert "<img src=x" not in page
    tags = {tag for tag, _ in outline(page).tags}
    assert "script" not in tags
    assert "img" not in tags


def test_stopped_run_has_a_whole_page(stopped: Run) -> None:
    text = words(render_page(stopped, {}))
    assert "Stopped after 4 of 12 rounds (round 5 closed with 1 update, the quorum is 3)" in text
    assert "No model was tested: the run stopped before its evaluation." in text
    assert "The federated model was not tested." in text
    assert "Nothing was compared" in text


def test_missing_baselines_leave_out_their_columns(lonely: Run) -> None:
    page = render_page(lonely, {})
    assert '<th scope="col">Federated</th>' in page
    assert '<th scope="col">Pooled</th>' not in page
    assert "all 1 training sites" not in page


def test_torn_journal_is_told(five: Run) -> None:
    journal = dataclasses.replace(five.journal, torn=True)
    assert "torn line" in words(render_page(dataclasses.replace(five, journal=journal), {}))
    empty = dataclasses.replace(five, journal=Journal())
    assert "No round was recorded." in words(render_page(empty, {}))


def test_privacy_other_than_none_is_named(five: Run) -> None:
    results = five.results.model_copy(update={"privacy": "patient-level"})
    text = words(render_page(dataclasses.replace(five, results=results), {}))
    assert "Privacy: patient-level." in text
    assert "No privacy mechanism" not in text


def test_notes_of_the_run_are_shown(five: Run) -> None:
    results = five.results.model_copy(update={"notes": ("sites confound class <b>",)})
    page = render_page(dataclasses.replace(five, results=results), {})
    assert "sites confound class &lt;b&gt;" in page


def test_left_out_sites_have_their_section(five: Run, unseen: Run) -> None:
    page = render_page(unseen, {})
    start = page.index('<section id="unseen"')
    section = words(page[start : page.index("</section>", start)] + "</section>")
    assert "A site never trained on" in section
    for site in ("kigali", "lyon", "osaka"):
        cell = unseen.results.evaluation(f"without-{site}", site)
        assert cell is not None
        assert f"{cell.metrics['macro_auroc'].value:.3f}" in section
    assert "quito" in section
    assert "undefined: all 16 test cases are normal" in section
    assert '#unseen"' in page
    assert "unseen" not in render_page(five, {})


def test_one_external_site_is_not_told_twice(five: Run, unseen: Run) -> None:
    assert five.results.comparison("pooled", "external sites") is not None
    assert '<th scope="row">external sites' not in render_page(five, {})
    assert '<th scope="row">external sites' in render_page(unseen, {})


def test_external_sites_together_are_apart_from_the_union(unseen: Run) -> None:
    text = words(render_page(unseen, {}))
    assert "external sites" in text
    assert "Case passes, as planned: 12.00 federated, 12.04 pooled." in text
