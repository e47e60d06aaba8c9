"""The selected model goes to every site, and every site that gives no test has its reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_factory import DirectChannel, make_contract, make_sites

from fedcad.server.channel import Lost
from fedcad.server.delivery import NAME, deliver, write_delivery
from fedcad.shared.messages import Update
from fedcad.shared.metrics.registry import statistics_for


def test_sites_and_union_have_the_metrics_of_their_statistics() -> None:
    contract = make_contract()
    found = deliver(contract, DirectChannel(make_sites(contract)), contract.initial, selected={})
    assert set(found["sites"]) == {"a", "b", "c"}
    assert found["union"]["cases"] == sum(site["cases"] for site in found["sites"].values())
    assert found["without"] == {}
    family = statistics_for(contract.study)
    channel = DirectChannel(make_sites(contract))
    direct = deliver(contract, channel, contract.initial, selected={})
    (_, plan), *_ = channel.plans
    assert plan.work == ("test",)
    update = make_sites(contract)[0].answer(plan, {"model": contract.initial.numpy()})
    metrics = family.metrics(update.statistics["test"][0])
    assert direct["sites"]["a"] == {"cases": 3, **{name: each.value for name, each in metrics.items()}}


def test_sites_without_a_test_are_named(tmp_path: Path) -> None:
    contract = make_contract()

    def garbage(plan: Any, update: Update) -> Update:
        return Update(update.header, {}, {"test": np.zeros((1, 1), np.int64)})

    channel = DirectChannel(make_sites(contract), {("a", 0): garbage, ("b", 0): lambda *_: Lost("gone")})
    channel.not_ready = {"d": Lost("not connected")}
    found = deliver(contract, channel, contract.initial, selected={})
    assert set(found["sites"]) == {"c"}
    assert set(found["without"]) == {"a", "b", "d"}
    assert found["without"]["b"] == "gone"
    assert found["without"]["d"] == "not connected"
    write_delivery(tmp_path, found)
    assert json.loads((tmp_path / NAME).read_text()) == found


def test_nobody_there_is_no_failure() -> None:
    contract = make_contract()
    channel = DirectChannel([])
    channel.not_ready = {"a": Lost("not connected")}
    assert deliver(contract, channel, contract.initial, selected={}) == {
        "sites": {},
        "union": {},
        "without": {"a": "not connected"},
    }


@pytest.mark.parametrize("site", ["b"])
def test_a_site_without_test_cases_gets_the_model(site: str) -> None:
    contract = make_contract()
    sites = make_sites(contract)
    sites[1].cases["test"] = 0
    found = deliver(contract, DirectChannel(sites), contract.initial, selected={})
    assert found["without"] == {site: "it has the model, and no test cases"}
