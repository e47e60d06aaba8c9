"""Checks on a reply before any of its numbers are used."""

from collections.abc import Mapping

import numpy as np

from fedcad.shared.errors import InvalidUpdate, ProtocolError
from fedcad.shared.messages import Part, Refusal, RoundPlan, SiteInfo, Update
from fedcad.shared.metrics.interface import Statistics, StatisticsFamily

LARGEST_COUNT = 2**53
"""Bound on one statistic: what float64 counts exactly. Sums over up to 1023 sites then stay inside int64."""
STATISTICS_OF: Mapping[str, Part] = {"validate": "validation", "test": "test"}


def check_update(
    update: Update, *, plan: RoundPlan, info: SiteInfo, family: StatisticsFamily, replicates: int = 0
) -> None:
    """Refuse an answer that is not to this plan, from this site, of the agreed form and the enrolled cases.

    Shape, dtype and finiteness of the vectors are checked by the aggregator, which must read them anyway.

    Args:
        update: The answer.
        plan: What was asked.
        info: How the site that was asked enrolled.
        family: The study's statistics.
        replicates: Bootstrap replicates that come with statistics of the test part.

    Raises:
        ProtocolError: Another study, round, plan or site: stale or confused.
        InvalidUpdate: Statistics or vectors missing, unexpected, not those that the header names, of a wrong
            shape, contradictory, or of another number of cases than the site enrolled with.
    """
    header = update.header
    if header.site != info.site:
        raise ProtocolError(f"the answer is signed {header.site!r}; {info.site!r} was asked")
    if header.study_hash != plan.study_hash:
        raise ProtocolError("the answer belongs to another study")
    if header.round != plan.round:
        raise ProtocolError(f"the answer is for round {header.round}; round {plan.round} was asked for")
    if header.plan != plan.identity:
        raise ProtocolError(f"the answer is to another plan of round {plan.round}: a stale attempt")
    _check_names(update, plan, info)
    for part in STATISTICS_OF.values():
        if part in update.statistics:
            rows, enrolled = 1 + (replicates if part == "test" else 0), info.cases[part]
            _check_values(part, update.statistics[part], family=family, rows=rows, enrolled=enrolled)


def check_refusal(refusal: Refusal, *, plan: RoundPlan, site: str) -> None:
    """Refuse a refusal that is not to this plan, or not from this site.

    Raises:
        ProtocolError: It is stale or confused.
    """
    if refusal.site != site or refusal.plan != plan.identity:
        raise ProtocolError(
            f"the refusal is signed {refusal.site!r} or is to another plan; {site!r} was asked"
        )


def _check_names(update: Update, plan: RoundPlan, info: SiteInfo) -> None:
    """Refuse what was not asked for, what is missing, and what the header does not say."""
    parts = {STATISTICS_OF[work] for work in plan.work if work in STATISTICS_OF}
    owed = {part for part in parts if info.cases[part]}
    unexpected, missing = sorted(set(update.statistics) - owed), sorted(owed - set(update.statistics))
    if unexpected:
        # Also those of no cases: their mean loss would be infinite, and its part in the union's undefined.
        raise InvalidUpdate(f"statistics {unexpected} were not asked for or are of no enrolled cases")
    if missing:
        raise InvalidUpdate(f"statistics {', '.join(missing)} are missing; the site enrolled with such cases")
    if ("train" in plan.work) != bool(update.vectors):
        raise InvalidUpdate(f"the answer has vectors {sorted(update.vectors)} for the work {list(plan.work)}")
    if set(update.header.weights) != set(update.vectors):
        raise InvalidUpdate(
            f"the answer has weights of {sorted(update.header.weights)} for vectors {sorted(update.vectors)}"
        )
    sent, told = sorted([*update.vectors, *update.statistics]), sorted(update.header.releases)
    if sent != told:
        raise InvalidUpdate(f"the answer holds {sent}; its header says that it releases {told}")


def _check_values(
    name: str, values: Statistics, *, family: StatisticsFamily, rows: int, enrolled: int
) -> None:
    """Refuse statistics of another form, those that no cases can give, and those of other cases."""
    shape = (rows, family.size)
    if values.dtype != np.int64 or values.shape != shape:
        raise InvalidUpdate(f"statistics {name} are {values.dtype} {values.shape}; expected int64 {shape}")
    if np.any(values < 0) or np.any(values > LARGEST_COUNT):
        raise InvalidUpdate(f"statistics {name} hold counts outside 0 to {LARGEST_COUNT}")
    family.check(values)
    cases = family.cases(values[0])
    if cases != enrolled:
        raise InvalidUpdate(f"statistics {name} are of {cases} cases; the site enrolled with {enrolled}")
