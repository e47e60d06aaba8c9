"""The end of a real study: every site gets the selected model and says how it does on its own test cases."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcad.server.channel import Channel, Lost
from fedcad.server.final_test import test_plans
from fedcad.server.reply_checks import check_update
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.contract import Contract
from fedcad.shared.errors import InvalidUpdate, ProtocolError
from fedcad.shared.messages import SiteInfo, Update
from fedcad.shared.metrics.interface import StatisticsFamily
from fedcad.shared.metrics.registry import statistics_for

NAME = "test.json"


def deliver(
    contract: Contract, channel: Channel, model: Tensor, *, selected: Mapping[str, int], attempt: int = 1
) -> dict[str, Any]:
    """Send the selected model to every site that is ready, and gather its test.

    Args:
        contract: The study.
        channel: To its sites.
        model: The selected parameters, shape (layout.size,).
        selected: For each site, its last counted round of the selected version.
        attempt: The study's present attempt; sites answer no earlier one.

    Returns:
        Plain data: ``sites`` (name → cases and metrics), ``union`` (of all of them), ``without`` (name →
        why there is no test; such a site has the model only where the reason says so).
    """
    answers = channel.ready()
    infos = {name: answer for name, answer in answers.items() if isinstance(answer, SiteInfo)}
    without = {name: answer.reason for name, answer in answers.items() if isinstance(answer, Lost)}
    vectors = {"model": model.numpy()}
    rounds = {site: selected.get(site, 0) for site in infos}
    plans = test_plans(contract, vectors, rounds, attempt=attempt)
    found: dict[str, NDArray[np.int64]] = {}
    family = statistics_for(contract.study)
    for reply in channel.ask(plans, vectors, contract.study.participation.deadline_s):
        try:
            statistics = _statistics(reply.answer, contract, infos[reply.site], plans[reply.site])
        except (ProtocolError, InvalidUpdate) as error:
            without[reply.site] = str(error)
            continue
        if statistics is None:
            without[reply.site] = "it has the model, and no test cases"
            continue
        found[reply.site] = statistics
    return _described(found, without, infos, family)


def write_delivery(folder: Path, delivery: Mapping[str, Any]) -> None:
    """Write what :func:`deliver` returned into a study's folder."""
    write_bytes(folder / NAME, json.dumps(delivery, indent=1, allow_nan=False).encode())


def _statistics(answer: object, contract: Contract, info: SiteInfo, plan: Any) -> NDArray[np.int64] | None:
    """Return a site's test statistics, the sample and its replicates, or None where it has no test cases."""
    if isinstance(answer, Lost):
        raise ProtocolError(answer.reason)
    if not isinstance(answer, Update):
        raise ProtocolError(f"it refused: {getattr(answer, 'code', answer)}")
    replicates = contract.study.evaluation.bootstrap_replicates
    family = statistics_for(contract.study)
    check_update(answer, plan=plan, info=info, family=family, replicates=replicates)
    statistics = answer.statistics.get("test")
    return None if statistics is None else statistics.copy()


def _described(
    found: Mapping[str, NDArray[np.int64]],
    without: Mapping[str, str],
    infos: Mapping[str, SiteInfo],
    family: StatisticsFamily,
) -> dict[str, Any]:
    sites = {
        name: {"cases": infos[name].cases["test"], **_metrics(family, found[name][0])}
        for name in sorted(found)
    }
    union: dict[str, Any] = {}
    if found:
        total: NDArray[np.int64] = np.sum([found[name][0] for name in sorted(found)], axis=0, dtype=np.int64)
        union = {"cases": sum(infos[name].cases["test"] for name in found), **_metrics(family, total)}
    return {"sites": sites, "union": union, "without": dict(sorted(without.items()))}


def _metrics(family: StatisticsFamily, statistics: NDArray[np.int64]) -> dict[str, Any]:
    return {name: metric.value for name, metric in family.metrics(statistics).items()}
