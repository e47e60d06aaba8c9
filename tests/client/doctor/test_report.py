import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fedcad.client.doctor.check import Check, Finding, Result, Verdict, failed, ok, warning
from fedcad.client.doctor.report import is_go, json_report, plain_report, print_report, verdict_line

LONG = "/very/long/folder/" + "x" * 90


def result(finding, name="probe", group="Machine"):
    return Result(Check(group, name, lambda tell: finding), finding, 0.25)


GOOD, DOUBT, BAD = result(ok("fine")), result(warning("near", "act")), result(failed("broken", "mend"))
SKIPPED = result(Finding(Verdict.SKIPPED, "see 'port'"))


@pytest.mark.parametrize(
    ("results", "line", "go"),
    [
        ([GOOD], "GO", True),
        ([GOOD, SKIPPED], "GO", True),
        ([GOOD, DOUBT], "GO: 1 warning", True),
        ([DOUBT, DOUBT], "GO: 2 warnings", True),
        ([GOOD, BAD], "NO-GO: 1 problem", False),
        ([BAD, DOUBT, BAD, SKIPPED], "NO-GO: 2 problems", False),
    ],
)
def test_verdict(results, line, go):
    assert verdict_line(results) == line
    assert is_go(results) == go
    assert plain_report(results).endswith(f"\n{line}\n")
    assert json.loads(json_report(results))["go"] == go


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=200)


@given(st.lists(st.tuples(st.sampled_from(list(Verdict)), TEXTS, TEXTS), max_size=5))
def test_no_text_breaks_the_reports(items):
    results = [result(Finding(verdict, found, remedy)) for verdict, found, remedy in items]
    plain = plain_report(results)
    assert plain.splitlines()[-1] == verdict_line(results)
    assert [check["found"] for check in json.loads(json_report(results))["checks"]] == [
        found for _, found, _ in items
    ]
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    print_report(results, console)


def test_plain_lines_are_short_except_for_what_must_stay_whole():
    text = plain_report([result(failed("word " * 60, f"Run: chmod go-rwx {LONG}"))], ["note " * 40])
    assert [line for line in text.splitlines() if len(line) > 78] == [
        line for line in text.splitlines() if LONG in line
    ]
    assert f" {LONG}" in text


def test_terminal_fits_80_columns_and_shows_markup_literally():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    print_report([result(failed("found [red]x[/red] " * 9, "do " * 40), "a name"), GOOD], console, ["a note"])
    shown = stream.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "[red]x[/red]" in shown
    assert "✗" in shown
    assert "→ do" in shown
    assert shown.splitlines()[-1] == "NO-GO: 1 problem"
    assert "a note" in shown


def test_several_lines_stand_below_each_other():
    lines = plain_report([result(ok("first\nsecond"))]).splitlines()
    assert lines[1].index("first") == lines[2].index("second") == 23


def test_not_checked_is_said():
    assert "not checked: see 'port'" in plain_report([SKIPPED])
    assert json.loads(json_report([SKIPPED]))["checks"][0]["verdict"] == "not checked"
