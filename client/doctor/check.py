"""One check of the doctor: what it found, whether that is good enough, and what to do about it.

Why a verdict "not checked": where the port is closed, nothing can be said about the certificate behind it.
One cause must count as one problem, or the list sends IT after its shadows.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from fedcad.shared.errors import FedCADError

Tell = Callable[[str], None]
"""Called by a long check with how far it is."""


class Verdict(StrEnum):
    """What a check says."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "not checked"


@dataclass(frozen=True)
class Finding:
    """The result of one check, without anything about a patient.

    Attributes:
        verdict: Whether it is good enough.
        found: What was found, in plain words.
        remedy: What to do; empty where there is nothing to do.
    """

    verdict: Verdict
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(Verdict.OK, found)


def warning(found: str, remedy: str) -> Finding:
    """Return a finding that works now and may not for long."""
    return Finding(Verdict.WARNING, found, remedy)


def failed(found: str, remedy: str) -> Finding:
    """Return a finding with which the node cannot work."""
    return Finding(Verdict.FAILED, found, remedy)


class NotCheckable(FedCADError):  # noqa: N818 - the domain's word, not an "...Error"
    """What a check needs is missing for a reason that another check reports."""


@dataclass(frozen=True)
class Check:
    """A question about the machine, the network or the data.

    Attributes:
        group: Heading under which it is listed.
        name: What is checked, in a word or two.
        run: Answers it; may raise, see :func:`examine`.
    """

    group: str
    name: str
    run: Callable[[Tell], Finding]


@dataclass(frozen=True)
class Result:
    """A check and its finding.

    Attributes:
        check: The check.
        finding: What it found.
        seconds: How long it took.
    """

    check: Check
    finding: Finding
    seconds: float


def examine(checks: Iterable[Check], watch: Callable[[Check], Tell]) -> tuple[Result, ...]:
    """Run checks one after another.

    Args:
        checks: In the order of the list.
        watch: Called before each check; returns whom it tells how far it is.

    Guarantees:
        Every check has a result, whatever another one found or raised.
    """
    results = []
    for check in checks:
        tell, start = watch(check), time.monotonic()
        finding = _find(check, tell)
        results.append(Result(check, finding, time.monotonic() - start))
    return tuple(results)


def _find(check: Check, tell: Tell) -> Finding:
    """Run one check; whatever it raises is its finding."""
    try:
        return check.run(tell)
    except NotCheckable as error:
        return Finding(Verdict.SKIPPED, str(error))
    except FedCADError as error:
        return failed(str(error), "")
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        return failed(what, "Give the account of the node access, then run the doctor again.")
    except Exception as error:  # noqa: BLE001 - one defect must not hide what all other checks found
        # The kind alone: the text of a foreign error may quote a file's content.
        return failed(
            f"FedCAD could not do this check ({type(error).__name__})",
            f"This is a defect of FedCAD: report it with the name of the check, '{check.name}'.",
        )


def problems(results: Iterable[Result], verdict: Verdict = Verdict.FAILED) -> int:
    """Return how many results have a verdict."""
    return sum(result.finding.verdict is verdict for result in results)
