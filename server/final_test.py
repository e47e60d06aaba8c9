"""The last step of a study: every model on every site's test cases, as mergeable statistics."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedcad.server.channel import Channel
from fedcad.server.reply_checks import check_update
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import ProtocolError
from fedcad.shared.messages import RoundPlan, SiteInfo, Update, Vectors
from fedcad.shared.metrics.registry import statistics_for


def statistics_of(
    contract: Contract, channel: Channel, models: Vectors, *, sites: Mapping[str, SiteInfo]
) -> dict[str, NDArray[np.int64]]:
    """Return test statistics of one model, or of the mean output of several, at each site.

    Args:
        contract: The study.
        channel: Connection to the sites.
        models: One vector named ``model``, or members of an ensemble.
        sites: The sites to ask, as they enrolled, each with test cases.

    Returns:
        For each site int64 (1 + replicates, size): row 0 is the sample, the others bootstrap replicates.

    Raises:
        ProtocolError: A site gave no usable answer.
        InvalidUpdate: A site's statistics are missing, not of the agreed form, or not of the test cases that
            it enrolled with.
    """
    asked = _plans(contract, models, sites)
    family = statistics_for(contract.study)
    replicates = contract.study.evaluation.bootstrap_replicates
    found = {}
    for reply in channel.ask(asked, models, contract.study.participation.deadline_s):
        if reply.site not in asked:
            continue
        if not isinstance(reply.answer, Update):
            raise ProtocolError(f"site {reply.site} gave no test statistics: {reply.answer}")
        plan, info = asked[reply.site], sites[reply.site]
        check_update(reply.answer, plan=plan, info=info, family=family, replicates=replicates)
        if "test" not in reply.answer.statistics:
            raise ProtocolError(f"site {reply.site} gave no test statistics; does it have test cases?")
        found[reply.site] = reply.answer.statistics["test"].copy()
    silent = sorted(set(asked) - set(found))
    if silent:
        raise ProtocolError(f"no answer from {', '.join(silent)}")
    return found


def _plans(contract: Contract, models: Vectors, sites: Iterable[str]) -> dict[str, RoundPlan]:
    broadcast_hash = hash_of_vectors(dict(models))
    return {
        site: RoundPlan(
            study_hash=contract.study_hash,
            site=site,
            round=0,
            work=("test",),
            broadcast_hash=broadcast_hash,
        )
        for site in sites
    }
