"""Checks on a reply before any of its numbers are used."""

import numpy as np

from fedcad.shared.errors import InvalidUpdate, ProtocolError
from fedcad.shared.messages import Refusal, RoundPlan, Update

LARGEST_COUNT = 2**53
"""Bound on one statistic, so that sums over any number of sites stay inside int64."""
STATISTICS_OF = {"validate": "validation", "test": "test"}


def check_update(
    update: Update, *, plan: RoundPlan, site: str, statistics_size: int, replicates: int = 0
) -> None:
    """Refuse an answer that is not to this plan, from this site, of the agreed form.

    Shape, dtype and finiteness of the vectors are checked by the aggregator, which must read them anyway.

    Args:
        update: The answer.
        plan: What was asked.
        site: Who was asked.
        statistics_size: Length of one vector of statistics.
        replicates: Bootstrap replicates that come with statistics of the test part.

    Raises:
        ProtocolError: Another study, round, plan or site: stale or confused.
        InvalidUpdate: Statistics or vectors missing, unexpected, or of a wrong shape.
    """
    header = update.header
    if header.site != site:
        raise ProtocolError(f"the answer is signed {header.site!r}; {site!r} was asked")
    if header.study_hash != plan.study_hash:
        raise ProtocolError("the answer belongs to another study")
    if header.round != plan.round:
        raise ProtocolError(f"the answer is for round {header.round}; round {plan.round} was asked for")
    if header.plan != plan.identity:
        raise ProtocolError(f"the answer is to another plan of round {plan.round}: a stale attempt")
    _check_statistics(update, plan, statistics_size, replicates)
    if ("train" in plan.work) != bool(update.vectors):
        raise InvalidUpdate(f"the answer has vectors {sorted(update.vectors)} for the work {list(plan.work)}")


def check_refusal(refusal: Refusal, *, plan: RoundPlan, site: str) -> None:
    """Refuse a refusal that is not to this plan, or not from this site.

    Raises:
        ProtocolError: It is stale or confused.
    """
    if refusal.site != site or refusal.plan != plan.identity:
        raise ProtocolError(
            f"the refusal is signed {refusal.site!r} or is to another plan; {site!r} was asked"
        )


def _check_statistics(update: Update, plan: RoundPlan, size: int, replicates: int) -> None:
    allowed = {STATISTICS_OF[work] for work in plan.work if work in STATISTICS_OF}
    unexpected = set(update.statistics) - allowed
    if unexpected:
        raise InvalidUpdate(f"the answer has statistics {sorted(unexpected)} that were not asked for")
    for name, values in update.statistics.items():
        shape = (1 + (replicates if name == "test" else 0), size)
        if values.dtype != np.int64 or values.shape != shape:
            raise InvalidUpdate(
                f"statistics {name} are {values.dtype} {values.shape}; expected int64 {shape}"
            )
        if np.any(values < 0) or np.any(values > LARGEST_COUNT):
            raise InvalidUpdate(f"statistics {name} hold counts outside 0 to {LARGEST_COUNT}")
