"""The last step of a study: every model on every site's test cases, as mergeable statistics."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedcad.server.channel import Channel
from fedcad.server.reply_checks import check_update
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import ProtocolError
from fedcad.shared.messages import RoundPlan, Update, Vectors
from fedcad.shared.metrics.registry import statistics_for


def statistics_of(
    contract: Contract, channel: Channel, models: Vectors, *, sites: Iterable[str]
) -> dict[str, NDArray[np.int64]]:
    """Return test statistics of one model, or of the mean output of several, at each site.

    Args:
        contract: The study.
        channel: Connection to the sites.
        models: One vector named ``model``, or members of an ensemble.
        sites: Names of the sites.

    Returns:
        For each site int64 (1 + replicates, size): row 0 is the sample, the others bootstrap replicates.

    Raises:
        ProtocolError: A site gave no usable answer.
    """
    plan = RoundPlan(
        study_hash=contract.study_hash,
        round=0,
        work=("test",),
        broadcast_hash=hash_of_vectors(dict(models)),
    )
    size = statistics_for(contract.study).size
    found = {}
    deadline = contract.study.participation.deadline_s
    for reply in channel.ask(dict.fromkeys(sites, plan), models, deadline):
        if not isinstance(reply.answer, Update):
            raise ProtocolError(f"site {reply.site} gave no test statistics: {reply.answer}")
        check_update(reply.answer, plan=plan, site=reply.site, statistics_size=size)
        found[reply.site] = reply.answer.statistics["test"].copy()
    return found
