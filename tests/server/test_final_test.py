"""The last test: statistics of every asked site, or an error that names the site."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_factory import DirectChannel, make_contract, make_sites

from fedcad.server.channel import Lost, Reply
from fedcad.server.final_test import counted_up_to, statistics_of
from fedcad.shared.errors import CheckpointError, FedCADError, InvalidUpdate, ProtocolError
from fedcad.shared.layout import Entry, Layout, Role
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update
from fedcad.shared.metrics.registry import statistics_for

CONTRACT = make_contract()
MODEL = CONTRACT.initial.numpy()


def infos(*names: str) -> dict[str, SiteInfo]:
    """How the sites enrolled: 3 test cases each."""
    return {site.name: site.info() for site in make_sites(CONTRACT) if site.name in names}


def test_each_site_gives_its_sample_and_replicates() -> None:
    channel = DirectChannel(make_sites(CONTRACT))
    found = statistics_of(CONTRACT, channel, {"model": MODEL}, sites=infos("a", "b"))
    family = statistics_for(CONTRACT.study)
    assert {site: (values.shape, values.dtype) for site, values in found.items()} == {
        site: ((3, family.size), np.dtype(np.int64)) for site in ("a", "b")
    }
    assert found["a"][0][-1] == 3
    assert {plan.work for _, plan in channel.plans} == {("test",)}
    assert {plan.round for _, plan in channel.plans} == {0}


def test_an_ensemble_is_the_mean_output_not_the_mean_model() -> None:
    channel = DirectChannel(make_sites(CONTRACT, "a"))
    other = MODEL * -3
    ensemble = statistics_of(CONTRACT, channel, {"x": MODEL, "y": other}, sites=infos("a"))["a"]
    middle = statistics_of(CONTRACT, channel, {"model": (MODEL + other) / 2}, sites=infos("a"))["a"]
    assert ensemble.shape == middle.shape
    assert not np.array_equal(ensemble, middle)


def spoilt(values: Any) -> Any:
    """One more hit in the last replicate."""
    values[-1, 0] += 1
    return values


WRONG: dict[str, tuple[type[FedCADError], str, Callable[[RoundPlan, Update], Any]]] = {
    "lost": (ProtocolError, "site b gave no test", lambda plan, update: Lost("cable")),
    "refused": (
        ProtocolError,
        "site b gave no test",
        lambda plan, update: Refusal(plan=plan.identity, site="b", code="no-data"),
    ),
    "without statistics": (
        InvalidUpdate,
        "test are missing",
        lambda plan, update: replace(update, statistics={}),
    ),
    "of many times the cases": (
        InvalidUpdate,
        f"are of {3 * 2**20} cases; the site enrolled with 3",
        lambda plan, update: replace(update, statistics={"test": update.statistics["test"] * 2**20}),
    ),
    "with a replicate that contradicts itself": (
        InvalidUpdate,
        "contradict",
        lambda plan, update: replace(update, statistics={"test": spoilt(update.statistics["test"])}),
    ),
    "of another site": (
        ProtocolError,
        "signed 'a'",
        lambda plan, update: replace(update, header=update.header.model_copy(update={"site": "a"})),
    ),
    "one replicate less": (
        InvalidUpdate,
        "expected int64",
        lambda plan, update: replace(update, statistics={"test": update.statistics["test"][:-1]}),
    ),
    "with a model": (
        InvalidUpdate,
        "vectors",
        lambda plan, update: replace(update, vectors={"model": MODEL}),
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_anything_else_is_an_error(kind: str) -> None:
    error, words, spoil = WRONG[kind]
    channel = DirectChannel(make_sites(CONTRACT), {("b", 0): spoil})
    with pytest.raises(error, match=words):
        statistics_of(CONTRACT, channel, {"model": MODEL}, sites=infos("a", "b", "c"))


def test_an_answer_of_nobody_that_was_asked_is_not_counted() -> None:
    class Crowded(DirectChannel):
        def ask(self, plans, vectors, deadline_s):  # type: ignore[no-untyped-def]
            yield Reply("stranger", Lost("who am I"))
            yield from super().ask(plans, vectors, deadline_s)

    channel = Crowded(make_sites(CONTRACT))
    assert list(statistics_of(CONTRACT, channel, {"model": MODEL}, sites=infos("a"))) == ["a"]


def test_a_site_that_the_channel_forgets_is_named() -> None:
    class Forgetful(DirectChannel):
        def ask(self, plans, vectors, deadline_s):  # type: ignore[no-untyped-def]
            return (reply for reply in super().ask(plans, vectors, deadline_s) if reply.site != "b")

    with pytest.raises(ProtocolError, match="no answer from b"):
        statistics_of(CONTRACT, Forgetful(make_sites(CONTRACT)), {"model": MODEL}, sites=infos("a", "b"))


LOG = [
    {"event": "validation", "version": 0},
    {"event": "round", "round": 1, "participation": [("a", "counted"), ("b", "lost"), ("c", "counted")]},
    {"event": "round", "round": 2, "participation": [("a", "counted"), ("b", "counted"), ("c", "late")]},
    {"event": "round", "round": 3, "participation": [("a", "rejected"), ("b", "counted")]},
    {"event": "last-validation", "round": 0, "participation": [("c", "counted")]},
]


def write_log(path: Path) -> Path:
    lines = [
        {**event, "participation": [{"site": s, "status": t} for s, t in event.get("participation", ())]}  # type: ignore[attr-defined]
        for event in LOG
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("version", "expected"),
    [(0, {}), (1, {"a": 1, "c": 1}), (2, {"a": 2, "b": 2, "c": 1}), (3, {"a": 2, "b": 3, "c": 1})],
)
def test_the_last_counted_rounds_of_a_version(tmp_path: Path, version: int, expected: dict[str, int]) -> None:
    assert counted_up_to(write_log(tmp_path / "rounds.jsonl"), version) == expected


@pytest.mark.parametrize("content", [b"{", b"[]\n", b'{"event": "round"}\n', b"\xff\n"])
def test_a_log_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rounds.jsonl"
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"rounds\.jsonl"):
            counted_up_to(path, 1)
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="resume the run"):
        counted_up_to(path, 1)


def test_plans_name_the_round_of_each_site() -> None:
    channel = DirectChannel(make_sites(CONTRACT))
    statistics_of(CONTRACT, channel, {"model": MODEL}, sites=infos("a", "b"), selected={"b": 7, "c": 9})
    assert {name: plan.selected_round for name, plan in channel.plans} == {"a": 0, "b": 7}


def test_personal_entries_are_never_tested_without_their_rounds() -> None:
    entries = (*CONTRACT.layout.entries, Entry("classifier/own", (2,), "float32", Role.LOCAL))
    contract = replace(CONTRACT, layout=Layout(entries))
    with pytest.raises(ValueError, match="of which rounds"):
        statistics_of(contract, DirectChannel([]), {"model": MODEL}, sites={})
    assert statistics_of(contract, DirectChannel([]), {"model": MODEL}, sites={}, selected={}) == {}
