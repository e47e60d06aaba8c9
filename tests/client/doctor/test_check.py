"""Every check has a result, whatever happens in it or in another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.doctor.check import (
    Check,
    Finding,
    NotCheckable,
    Verdict,
    examine,
    failed,
    ok,
    problems,
    warning,
)
from fedcad.shared.errors import DataError


def check(what, name="probe"):
    def run(tell):
        if isinstance(what, Finding):
            return what
        raise what

    return Check("Group", name, run)


def found(what):
    (result,) = examine([check(what)], lambda _: lambda text: None)
    return result.finding


def test_what_is_raised_becomes_the_finding():
    assert found(NotCheckable("see 'port'")) == Finding(Verdict.SKIPPED, "see 'port'")
    assert found(DataError("it is wrong; do this")) == Finding(Verdict.FAILED, "it is wrong; do this")
    denied = found(PermissionError(13, "Permission denied", "/archive"))
    assert denied.verdict is Verdict.FAILED
    assert denied.found == "/archive: Permission denied"
    assert "access" in denied.remedy


def test_text_of_a_foreign_error_is_not_repeated():
    finding = found(KeyError("Mustermann^Erika"))
    assert finding.verdict is Verdict.FAILED
    assert "KeyError" in finding.found
    assert "Mustermann" not in str(finding)
    assert "'probe'" in finding.remedy


def test_interruption_is_no_finding():
    with pytest.raises(KeyboardInterrupt):
        found(KeyboardInterrupt())


OUTCOMES = st.sampled_from(
    [
        ok("a"),
        warning("b", "c"),
        failed("d", "e"),
        NotCheckable("f"),
        DataError("g"),
        OSError(5, "h"),
        ZeroDivisionError(),
    ]
)


@given(st.lists(OUTCOMES, max_size=6))
def test_results_are_as_many_as_checks_and_in_order(outcomes):
    announced = []
    checks = [check(outcome, str(number)) for number, outcome in enumerate(outcomes)]

    def watch(each):
        announced.append(each.name)
        return lambda text: None

    results = examine(checks, watch)
    assert [result.check for result in results] == checks
    assert announced == [each.name for each in checks]
    bad = sum(
        isinstance(outcome, Exception) and not isinstance(outcome, NotCheckable) for outcome in outcomes
    )
    assert problems(results) == bad + outcomes.count(failed("d", "e"))
    assert problems(results, Verdict.WARNING) == outcomes.count(warning("b", "c"))
