"""The last step of a study: every model on every site's test cases, as mergeable statistics."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcad.server.channel import Channel
from fedcad.server.participation import Status
from fedcad.server.reply_checks import check_update
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError, ProtocolError
from fedcad.shared.layout import Role
from fedcad.shared.messages import RoundPlan, SiteInfo, Update, Vectors
from fedcad.shared.metrics.registry import statistics_for


def statistics_of(
    contract: Contract,
    channel: Channel,
    models: Vectors,
    *,
    sites: Mapping[str, SiteInfo],
    selected: Mapping[str, int] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return test statistics of one model, or of the mean output of several, at each site.

    Args:
        contract: The study.
        channel: Connection to the sites.
        models: One vector named ``model``, or members of an ensemble.
        sites: The sites to ask, as they enrolled, each with test cases.
        selected: Where the study's algorithm keeps entries at the sites: for each site, its last counted
            round of the version that is tested, from :func:`counted_up_to`; sites that never counted are
            absent and test with the initial entries.

    Returns:
        For each site int64 (1 + replicates, size): row 0 is the sample, the others bootstrap replicates.

    Raises:
        ValueError: The model has personal entries, and nothing says of which rounds.
        ProtocolError: A site gave no usable answer.
        InvalidUpdate: A site's statistics are missing, not of the agreed form, or not of the test cases that
            it enrolled with.
    """
    if selected is None and any(entry.role is Role.LOCAL for entry in contract.layout.entries):
        raise ValueError("the model has entries that stay at the sites; say of which rounds they are tested")
    asked = test_plans(contract, models, {site: (selected or {}).get(site, 0) for site in sites})
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


def counted_up_to(log: Path, version: int) -> dict[str, int]:
    """Return, by site, the last round up to a version in which its update counted; others are absent.

    Args:
        log: A finished run's ``rounds.jsonl``.
        version: Number of the version, which is that of the round that made it.

    Raises:
        CheckpointError: The log cannot be read.
    """
    found: dict[str, int] = {}
    try:
        for line in log.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["event"] == "round" and event["round"] <= version:
                parts = event["participation"]
                found |= {p["site"]: event["round"] for p in parts if p["status"] == Status.COUNTED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{log}: the log of rounds cannot be read: {error}; resume the run") from error
    return found


def test_plans(
    contract: Contract, models: Vectors, selected: Mapping[str, int], *, attempt: int = 1
) -> dict[str, RoundPlan]:
    """Return each site's plan for testing models.

    Args:
        contract: The study.
        models: What comes along.
        selected: For each site, its last counted round of the version that is tested.
        attempt: The study's present attempt; sites answer no earlier one.
    """
    broadcast_hash = hash_of_vectors(dict(models))
    return {
        site: RoundPlan(
            study_hash=contract.study_hash,
            site=site,
            round=0,
            attempt=attempt,
            work=("test",),
            broadcast_hash=broadcast_hash,
            selected_round=round_number,
        )
        for site, round_number in selected.items()
    }
