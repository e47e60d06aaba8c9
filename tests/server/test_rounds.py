"""Rounds over a real channel in this process: quorum, hostile answers, resumption, selection."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_factory import (
    ALGORITHMS,
    Answer,
    DirectChannel,
    LogisticSite,
    Stopped,
    bits_of,
    make_contract,
    make_run,
    make_sites,
    make_study,
)

from fedcad.server.attempts import MOST_NEW_ATTEMPTS
from fedcad.server.channel import FIRST_READY_S, Lost, Reply
from fedcad.server.checkpoint import Checkpoint, CheckpointStore, Selection
from fedcad.server.cohort import LATE_READY_S
from fedcad.server.participation import LONGEST_REASON
from fedcad.shared.algorithms.interface import Sums
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError, QuorumError
from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [event for event in events(folder) if event["event"] == "round"]


def quorum(count: int) -> dict[str, Any]:
    return {"quorum": count, "deadline_s": 60.0}


def weighted_mean(contract: Contract, sites: list[LogisticSite], model: torch.Tensor) -> torch.Tensor:
    """FedAvg's mean update, in float64 and without the code under test."""
    broadcast_hash = hash_of_vectors({"model": model.numpy()})
    total, weight = np.zeros(len(model)), 0
    for site in sites:
        plan = RoundPlan(
            study_hash=contract.study_hash,
            site=site.name,
            round=1,
            work=("train",),
            broadcast_hash=broadcast_hash,
        )
        update = site.answer(plan, {"model": model.numpy()})
        total += update.header.weights["model"] * update.vectors["model"].astype(np.float64)
        weight += update.header.weights["model"]
    return torch.from_numpy((total / weight).astype(np.float32))


def test_rounds_are_the_federated_average_by_hand(tmp_path: Path) -> None:
    contract = make_contract()
    sites = make_sites(contract)
    model = contract.initial.clone()
    for _ in range(3):
        model = model + weighted_mean(contract, sites, model)
    final = make_run(tmp_path, contract, DirectChannel(sites)).run()
    torch.testing.assert_close(final.state["model"], model, rtol=1e-6, atol=1e-8)
    assert final.is_finished
    assert final.round == 3
    assert final.last_counted == {"a": 3, "b": 3, "c": 3}


def test_sites_learn_something(tmp_path: Path) -> None:
    contract = make_contract(rounds=8)
    make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    losses = [event["union"]["loss"] for event in events(tmp_path) if event["event"] == "validation"]
    assert len(losses) == 9
    assert losses[-1] < losses[0] - 0.1


def test_order_of_answers_does_not_change_a_bit(tmp_path: Path) -> None:
    contract = make_contract()
    sites = make_sites(contract, "a", "b", "c", "d")
    one = make_run(tmp_path / "1", contract, DirectChannel(sites))
    other = make_run(tmp_path / "2", contract, DirectChannel(sites, backwards=True))
    assert bits_of(one.run()) == bits_of(other.run())


def test_the_log_names_everybody_with_weights_and_bytes(tmp_path: Path) -> None:
    contract = make_contract()
    seen: list[Any] = []
    make_run(tmp_path, contract, DirectChannel(make_sites(contract)), seen.append).run()
    first = rounds_of(tmp_path)[0]
    assert [(p["site"], p["status"], p["weight"]) for p in first["participation"]] == [
        ("a", "counted", 4),
        ("b", "counted", 6),
        ("c", "counted", 8),
    ]
    assert (first["bytes_sent"], first["bytes_received"], first["attempt"]) == (30, 60, 1)
    assert first["participation"][0]["delay_s"] == 1.5
    shown = [event["event"] for event in seen]
    assert shown[:6] == ["started", "answered", "answered", "answered", "validation", "round"]
    assert events(tmp_path)[-1]["event"] == "last-validation"


def test_validation_counts_come_from_enrolment_and_the_union_is_the_sum(tmp_path: Path) -> None:
    contract = make_contract()
    make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    first = events(tmp_path)[0]
    assert first["version"] == 0
    assert {site: figures["cases"] for site, figures in first["sites"].items()} == {"a": 4, "b": 4, "c": 4}
    mean = sum(figures["loss"] for figures in first["sites"].values()) / 3
    assert first["union"]["cases"] == 12
    assert first["union"]["loss"] == pytest.approx(mean, abs=1e-6)


# Hostile and failing sites.

Vector = Callable[[Any], Any]


def with_vector(change: Vector) -> Callable[[RoundPlan, Update], Answer]:
    def spoil(plan: RoundPlan, update: Update) -> Update:
        return replace(update, vectors={"model": change(update.vectors["model"].copy())})

    return spoil


def with_header(**changes: Any) -> Callable[[RoundPlan, Update], Answer]:
    def spoil(plan: RoundPlan, update: Update) -> Update:
        return replace(update, header=update.header.model_copy(update=changes))

    return spoil


def with_statistics(change: Callable[[Any], Any]) -> Callable[[RoundPlan, Update], Answer]:
    def spoil(plan: RoundPlan, update: Update) -> Update:
        return replace(update, statistics=change(dict(update.statistics)))

    return spoil


def with_validation(change: Vector) -> Callable[[RoundPlan, Update], Answer]:
    return with_statistics(lambda all: {"validation": change(all["validation"].copy())})


def put(index: Any, value: float) -> Vector:
    def change(values: Any) -> Any:
        values[index] = value
        return values

    return change


def refuse(plan: RoundPlan, update: Update) -> Refusal:
    return Refusal(plan=plan.identity, site="b", code="no-data")


MISCHIEF: dict[str, tuple[str, str, Callable[[RoundPlan, Update], Answer]]] = {
    "late": ("late", "too slow", lambda plan, update: Lost("too slow", is_late=True)),
    "lost": ("lost", "broken pipe", lambda plan, update: Lost("broken pipe")),
    "garbage": ("rejected", "not a header", lambda plan, update: Lost("not a header", is_garbage=True)),
    "refused": ("refused", "no-data", refuse),
    "refusal of another site": (
        "rejected",
        "signed 'a'",
        lambda plan, update: refuse(plan, update).model_copy(update={"site": "a"}),
    ),
    "stale refusal": (
        "rejected",
        "another plan",
        lambda plan, update: refuse(plan, update).model_copy(update={"plan": "0" * 64}),
    ),
    "stale round": ("rejected", "round 1", with_header(round=1)),
    "future round": ("rejected", "round 2147483647", with_header(round=2**31 - 1)),
    "wrong site": ("rejected", "signed 'a'", with_header(site="a")),
    "wrong study": ("rejected", "another study", with_header(study_hash="0" * 64)),
    "wrong plan": ("rejected", "another plan", with_header(plan="0" * 64)),
    "too much weight": ("rejected", "weights {'model': 7}", with_header(weights={"model": 7})),
    "no weight": ("rejected", "weights of []", with_header(weights={})),
    "a weight more": ("rejected", "['control', 'model']", with_header(weights={"model": 6, "control": 1})),
    "nan": ("rejected", "NaN", with_vector(put(3, np.nan))),
    "all nan": ("rejected", "NaN", with_vector(put(slice(None), np.nan))),
    "infinite": ("rejected", "NaN or infinity", with_vector(put(0, -np.inf))),
    "overflow": ("rejected", "overflow", with_vector(put(0, 3e38))),
    "too short": ("rejected", "shape (7,)", with_vector(lambda values: values[:-1])),
    "too long": ("rejected", "shape (9,)", with_vector(lambda values: np.append(values, np.float32(0)))),
    "empty": ("rejected", "shape (0,)", with_vector(lambda values: values[:0])),
    "matrix": ("rejected", "(2, 4)", with_vector(lambda values: values.reshape(2, 4))),
    "scalar": ("rejected", "()", with_vector(lambda values: np.float32(1).reshape(()))),
    "float64": ("rejected", "float64", with_vector(lambda values: values.astype(np.float64))),
    "big-endian": ("rejected", ">f4", with_vector(lambda values: values.astype(">f4"))),
    "objects": ("rejected", "object", with_vector(lambda values: values.astype(object))),
    "complex": ("rejected", "complex64", with_vector(lambda values: values.astype(np.complex64))),
    "another vector": (
        "rejected",
        "secret",
        lambda plan, update: replace(update, vectors={"secret": update.vectors["model"]}),
    ),
    "one vector more": (
        "rejected",
        "extra",
        lambda plan, update: replace(update, vectors={**update.vectors, "extra": update.vectors["model"]}),
    ),
    "no vector": ("rejected", "vectors []", lambda plan, update: replace(update, vectors={})),
    "unexpected statistics": (
        "rejected",
        "test",
        with_statistics(lambda all: {**all, "test": all["validation"]}),
    ),
    "no statistics": ("rejected", "validation are missing", with_statistics(lambda all: {})),
    "negative": ("rejected", "counts outside", with_validation(put((0, 5), -1))),
    "huge": ("rejected", "counts outside", with_validation(put((0, 0), 2**53 + 1))),
    "all zeros": ("rejected", "are of 0 cases; the site enrolled with 4", with_validation(np.zeros_like)),
    "contradiction": ("rejected", "contradict", with_validation(put((0, slice(4, 68)), 0))),
    "many times the cases": (
        "rejected",
        f"are of {4 * 2**20} cases; the site enrolled with 4",
        with_validation(lambda values: values * 2**20),
    ),
    "says that it releases less": ("rejected", "its header says", with_header(releases=("model",))),
    "says that it releases more": (
        "rejected",
        "its header says",
        with_header(releases=("model", "validation", "test")),
    ),
    "flat": ("rejected", "expected int64", with_validation(lambda values: values[0])),
    "two rows": ("rejected", "expected int64", with_validation(lambda values: np.repeat(values, 2, 0))),
    "no rows": ("rejected", "expected int64", with_validation(lambda values: values[:0])),
    "short row": ("rejected", "expected int64", with_validation(lambda values: values[:, 1:])),
    "floats": ("rejected", "float64", with_validation(lambda values: values.astype(np.float64))),
    "float nan": ("rejected", "float64", with_validation(lambda values: values * np.nan)),
}


@pytest.mark.parametrize("kind", MISCHIEF)
def test_what_cannot_be_used_is_named_and_never_counted(tmp_path: Path, kind: str) -> None:
    """Round 2 without b is, bit by bit, the round of a study in which b was lost."""
    status, reason, spoil = MISCHIEF[kind]
    contract = make_contract(rounds=2)
    sites = make_sites(contract)
    reference = make_run(
        tmp_path / "reference", contract, DirectChannel(sites, {("b", 2): MISCHIEF["lost"][2]})
    ).run()
    final = make_run(tmp_path / kind, contract, DirectChannel(sites, {("b", 2): spoil})).run()
    assert bits_of(final) == bits_of(reference)
    assert final.last_counted == {"a": 2, "b": 1, "c": 2}
    part = {p["site"]: p for p in rounds_of(tmp_path / kind)[1]["participation"]}
    assert part["b"]["status"] == status
    assert reason in part["b"]["reason"]
    assert part["b"]["weight"] == 0
    assert part["a"]["status"] == part["c"]["status"] == "counted"
    version_1 = [e for e in events(tmp_path / kind) if e["event"] == "validation" and e["version"] == 1]
    assert sorted(version_1[0]["sites"]) == ["a", "c"]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_site_far_off_cannot_push_out_others_by_answering_first(tmp_path: Path, backwards: bool) -> None:
    """Site a is beyond what the weights 4 + 6 + 8 allow: in either order it alone is rejected."""
    contract = make_contract(rounds=1)
    far = {(site, 1): with_vector(put(0, value)) for site, value in (("a", 2e8), ("b", 5e7), ("c", 5e7))}
    channel = DirectChannel(make_sites(contract), far, backwards=backwards)
    make_run(tmp_path, contract, channel).run()
    found = {p["site"]: p["status"] for p in rounds_of(tmp_path)[0]["participation"]}
    assert found == {"a": "rejected", "b": "counted", "c": "counted"}


def test_validation_of_no_enrolled_cases_is_rejected(tmp_path: Path) -> None:
    contract = make_contract(rounds=1)
    sites = make_sites(contract)
    honest = sites[0].answer
    sites[1].cases["validation"] = 0

    def invent(plan: RoundPlan, update: Update) -> Update:
        stolen = honest(plan, {"model": contract.initial.numpy()}).statistics
        header = update.header.model_copy(update={"releases": ("model", "validation")})
        return replace(update, header=header, statistics=stolen)

    make_run(tmp_path, contract, DirectChannel(sites, {("b", 1): invent})).run()
    part = {p["site"]: p["reason"] for p in rounds_of(tmp_path)[0]["participation"]}
    assert "of no enrolled cases" in part["b"]


def test_contradictions_that_only_the_union_would_show_are_rejected(tmp_path: Path) -> None:
    """One site claims only class 0, one only class 1, both without scores: the AUROC of both is nan."""
    contract = make_contract(rounds=1, participation=quorum(1))
    sites = make_sites(contract)

    def only(true_class: int) -> Callable[[RoundPlan, Update], Answer]:
        def change(values: Any) -> Any:
            values[0, :68] = 0
            values[0, 3 * true_class] = 4
            return values

        return with_validation(change)

    make_run(tmp_path, contract, DirectChannel(sites, {("a", 1): only(0), ("b", 1): only(1)})).run()
    part = {p["site"]: (p["status"], p["reason"]) for p in rounds_of(tmp_path)[0]["participation"]}
    assert part["c"][0] == "counted"
    assert all(part[site][0] == "rejected" and "contradict" in part[site][1] for site in "ab")


def test_a_second_answer_or_one_of_a_stranger_is_not_counted_and_silence_is_named(tmp_path: Path) -> None:
    contract = make_contract(rounds=1)

    class Confused(DirectChannel):
        def ask(self, plans, vectors, deadline_s):  # type: ignore[no-untyped-def]
            for reply in super().ask(plans, vectors, deadline_s):
                if reply.site == "a" or 0 in {plan.round for plan in plans.values()}:
                    yield reply
                if reply.site == "a":
                    yield reply
            yield Reply("stranger", Lost("who am I"))

    sites = make_sites(contract)
    make_run(tmp_path / "confused", contract, Confused(sites)).run()
    lost = {("b", 1): MISCHIEF["lost"][2], ("c", 1): MISCHIEF["lost"][2]}
    make_run(tmp_path / "reference", contract, DirectChannel(sites, lost)).run()
    part = rounds_of(tmp_path / "confused")[0]["participation"]
    assert [(p["site"], p["status"], p["reason"]) for p in part] == [
        ("a", "counted", ""),
        ("b", "lost", "no answer"),
        ("c", "lost", "no answer"),
    ]
    models = [
        CheckpointStore(tmp_path / name / "checkpoints").latest(contract.study_hash)
        for name in ("confused", "reference")
    ]
    assert torch.equal(*(each.state["model"] for each in models if each is not None))


def test_enrolled_sites_that_cannot_take_part_are_named_in_every_round(tmp_path: Path) -> None:
    contract = make_contract(rounds=2)
    channel = DirectChannel(make_sites(contract, "a", "b", "no-train", "other-name", "other-study"))
    channel.sites["no-train"].cases["train"] = 0
    channel.not_ready = {
        "gone": Lost("cable" * 1000),
        "other-name": channel.sites["a"].info(),
        "other-study": SiteInfo(
            site="other-study",
            study_hash="0" * 64,
            cases={"train": 1, "validation": 1, "test": 1},
            summary="",
        ),
    }
    make_run(tmp_path, contract, channel).run()
    assert {name for name, _ in channel.plans} == {"a", "b"}
    for event in (*rounds_of(tmp_path), events(tmp_path)[-1]):
        part = {p["site"]: (p["status"], p["reason"]) for p in event["participation"]}
        assert list(part) == ["a", "b", "gone", "no-train", "other-name", "other-study"]
        assert part["gone"][0] == "lost"
        assert len(part["gone"][1]) <= LONGEST_REASON + 20
        assert part["no-train"] == ("refused", "no training cases")
        assert part["other-name"][0] == part["other-study"][0] == "rejected"


def test_a_site_that_becomes_ready_later_joins_the_next_round(tmp_path: Path) -> None:
    contract = make_contract()

    class Slow(DirectChannel):
        def ask(self, plans, vectors, deadline_s):  # type: ignore[no-untyped-def]
            if {plan.round for plan in plans.values()} == {2}:
                self.not_ready.clear()
            yield from super().ask(plans, vectors, deadline_s)

    channel = Slow(make_sites(contract))
    channel.not_ready = {"b": Lost("it indexes its archive")}
    final = make_run(tmp_path, contract, channel).run()
    found = [{p["site"]: p["status"] for p in event["participation"]}["b"] for event in rounds_of(tmp_path)]
    assert found == ["lost", "lost", "counted"]
    assert final.last_counted == {"a": 3, "b": 3, "c": 3}
    assert channel.asked_ready == [(None, FIRST_READY_S), (["b"], LATE_READY_S), (["b"], LATE_READY_S)]
    last = events(tmp_path)[-2]
    assert (last["event"], sorted(last["sites"])) == ("validation", ["a", "b", "c"])


def test_only_the_absent_are_asked_again_once_a_round(tmp_path: Path) -> None:
    contract = make_contract()
    channel = DirectChannel(make_sites(contract, "a", "b", "no-train"))
    channel.sites["no-train"].cases["train"] = 0
    channel.not_ready = {"gone": Lost("cable")}
    make_run(tmp_path / "absent", contract, channel).run()
    assert channel.asked_ready == [(None, FIRST_READY_S)] + 3 * [(["gone", "no-train"], LATE_READY_S)]
    healthy = DirectChannel(make_sites(contract))
    make_run(tmp_path / "healthy", contract, healthy).run()
    assert healthy.asked_ready == [(None, FIRST_READY_S)]


def test_sites_cannot_change_the_coordinator_through_the_broadcast(tmp_path: Path) -> None:
    contract = make_contract(rounds=1)

    class Writing(DirectChannel):
        def ask(self, plans, vectors, deadline_s):  # type: ignore[no-untyped-def]
            with pytest.raises(ValueError, match="read-only"):
                vectors["model"][0] = 9
            yield from super().ask(plans, vectors, deadline_s)

    make_run(tmp_path, contract, Writing(make_sites(contract))).run()


# Quorum.


def test_quorum_is_met_exactly(tmp_path: Path) -> None:
    contract = make_contract(participation=quorum(2))
    channel = DirectChannel(make_sites(contract), {("c", 2): MISCHIEF["lost"][2]})
    assert make_run(tmp_path, contract, channel).run().is_finished
    assert channel.deadlines == {60.0}


def test_quorum_missed_stops_with_every_reason_and_keeps_the_last_round(tmp_path: Path) -> None:
    contract = make_contract(participation=quorum(2))
    wrong = {("b", 2): MISCHIEF["nan"][2], ("c", 2): MISCHIEF["late"][2]}
    run = make_run(tmp_path, contract, DirectChannel(make_sites(contract), wrong))
    with pytest.raises(
        QuorumError, match=r"round 2 had 1 .* quorum is 2.*b rejected \(.*NaN.*c late \(too slow"
    ):
        run.run()
    assert events(tmp_path)[-1]["event"] == "stopped"
    assert events(tmp_path)[-1]["round"] == 2
    resumed = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    untouched = make_run(tmp_path / "untouched", contract, DirectChannel(make_sites(contract))).run()
    assert bits_of(resumed) == bits_of(untouched)
    assert [event["round"] for event in rounds_of(tmp_path)] == [1, 2, 3]
    assert all(event["event"] != "stopped" for event in events(tmp_path))


def test_nobody_ready_is_a_missed_quorum_with_the_reasons(tmp_path: Path) -> None:
    contract = make_contract()
    channel = DirectChannel([])
    channel.not_ready = {"a": Lost("no answer"), "b": Lost("archive is empty")}
    with pytest.raises(QuorumError, match=r"a lost .*no answer.*b lost .*archive is empty"):
        make_run(tmp_path, contract, channel).run()


def test_the_last_validation_needs_its_quorum_too(tmp_path: Path) -> None:
    """Otherwise the last version would silently never be selected."""
    contract = make_contract(participation=quorum(3))
    channel = DirectChannel(make_sites(contract), {("b", 0): MISCHIEF["lost"][2]})
    with pytest.raises(QuorumError, match=r"the last validation had 2 .*b lost"):
        make_run(tmp_path, contract, channel).run()
    resumed = make_run(tmp_path, contract, DirectChannel(make_sites(contract)))
    untouched = make_run(tmp_path / "untouched", contract, DirectChannel(make_sites(contract)))
    assert bits_of(resumed.run()) == bits_of(untouched.run())


# Resumption.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stop_in", [1, 2, 3, 0])
def test_a_run_stopped_anywhere_goes_on_with_the_same_bits(
    tmp_path: Path, algorithm: str, stop_in: int
) -> None:
    contract = make_contract(algorithm=algorithm)
    sites = make_sites(contract)
    untouched = make_run(tmp_path / "untouched", contract, DirectChannel(sites)).run()
    with pytest.raises(Stopped):
        make_run(tmp_path / "stopped", contract, DirectChannel(sites, stop_in=stop_in)).run()
    channel = DirectChannel(sites, backwards=True)
    resumed = make_run(tmp_path / "stopped", contract, channel).run()
    assert bits_of(resumed) == bits_of(untouched)
    assert {plan.round for _, plan in channel.plans} == set(range(stop_in or 4, 4)) | {0}
    kept = [{k: v for k, v in e.items() if k != "seconds"} for e in events(tmp_path / "stopped")]
    expected = [{k: v for k, v in e.items() if k != "seconds"} for e in events(tmp_path / "untouched")]
    assert kept == expected


def test_events_of_a_round_that_was_not_saved_are_cut_off(tmp_path: Path) -> None:
    """Killed after the log was written and before the checkpoint was."""
    contract = make_contract(rounds=2)
    run = make_run(tmp_path, contract, DirectChannel(make_sites(contract)))
    run._store.save = lambda checkpoint: (_ for _ in ()).throw(Stopped())  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run.run()
    assert len(events(tmp_path)) == 2
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    assert [event["round"] for event in rounds_of(tmp_path)] == [1, 2]
    assert final.events == len(events(tmp_path))


def test_a_finished_run_asks_nobody(tmp_path: Path) -> None:
    contract = make_contract()
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    channel = DirectChannel(make_sites(contract))
    assert bits_of(make_run(tmp_path, contract, channel).run()) == bits_of(final)
    assert channel.asked_ready == []
    assert channel.plans == []


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    contract = make_contract()
    make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    other = make_contract(seed=2)
    with pytest.raises(CheckpointError, match="another study"):
        make_run(tmp_path, other, DirectChannel(make_sites(other))).run()


def test_plans_say_which_round_of_each_site_counted_last(tmp_path: Path) -> None:
    contract = make_contract()
    channel = DirectChannel(make_sites(contract), {("b", 2): MISCHIEF["nan"][2]})
    make_run(tmp_path, contract, channel).run()
    told = {(name, plan.round): plan.last_counted_round for name, plan in channel.plans}
    assert [told["a", number] for number in (1, 2, 3, 0)] == [0, 1, 2, 3]
    assert [told["b", number] for number in (1, 2, 3, 0)] == [0, 1, 1, 3]
    chosen = {plan.round: plan.selected_round for _, plan in channel.plans}
    versions = [event["version"] for event in events(tmp_path) if event["event"] == "validation"]
    assert versions == [0, 1, 2, 3]
    assert chosen[1] == chosen[2] == 0
    assert 0 <= chosen[3] <= 1
    assert chosen[3] <= chosen[0] <= 2
    work = {plan.round: plan.work for _, plan in channel.plans}
    assert work == {
        1: ("validate", "train"),
        2: ("validate", "train"),
        3: ("validate", "train"),
        0: ("validate",),
    }


# Selection.


def validated(folder: Path) -> dict[int, tuple[int, float]]:
    """For each version, the number of its sites and its loss, from the log."""
    return {
        event["version"]: (len(event["sites"]), event["union"]["loss"])
        for event in events(folder)
        if event["event"] == "validation"
    }


def loss_on(folder: Path, version: int, sites: str) -> float:
    """Mean loss of a version over the cases of some sites, from the log."""
    event = next(e for e in events(folder) if e["event"] == "validation" and e["version"] == version)
    figures = [event["sites"][site] for site in sites]
    return sum(each["loss"] * each["cases"] for each in figures) / sum(each["cases"] for each in figures)


def loss_of(selection: Selection) -> float:
    cases = sum(count for _, count in selection.losses.values())
    return sum(loss * count for loss, count in selection.losses.values()) / cases


def test_the_version_with_the_lowest_loss_is_selected(tmp_path: Path) -> None:
    contract = make_contract(algorithm="fedopt-sgd", rounds=5)
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    found = validated(tmp_path)
    best = min(found, key=lambda version: found[version][1])
    assert final.selection.version == best
    assert loss_of(final.selection) == pytest.approx(found[best][1])
    assert sorted(final.selection.losses) == ["a", "b", "c"]


def test_a_worse_later_version_is_not_selected(tmp_path: Path) -> None:
    """A learning rate far too high: later versions are worse."""
    wild = {"name": "sgd", "learning_rate": 10.0, "momentum": 0.9}
    contract = make_contract(make_study(algorithm={"name": "fedopt", "server_optimizer": wild}, rounds=6))
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    found = validated(tmp_path)
    assert final.selection.version == min(found, key=lambda version: found[version][1]) < 6
    assert not torch.equal(final.selection.model, final.state["model"])


def test_versions_are_compared_on_the_sites_that_saw_both(tmp_path: Path) -> None:
    """Versions 2 and 3 are validated without b: they are compared with version 1 on a and c alone."""
    contract = make_contract()
    channel = DirectChannel(
        make_sites(contract), {("b", 3): MISCHIEF["lost"][2], ("b", 0): MISCHIEF["lost"][2]}
    )
    final = make_run(tmp_path, contract, channel).run()
    found = validated(tmp_path)
    assert [found[version][0] for version in range(4)] == [3, 3, 2, 2]
    assert final.selection.version == min((1, 2, 3), key=lambda version: loss_on(tmp_path, version, "ac"))


def test_last_round_takes_the_last_version_with_its_own_loss(tmp_path: Path) -> None:
    contract = make_contract(evaluation={"selection": "last_round", "score_bins": 16})
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    assert final.selection.version == 3
    assert torch.equal(final.selection.model, final.state["model"])
    sites, loss = validated(tmp_path)[3]
    assert (len(final.selection.losses), loss_of(final.selection)) == (sites, pytest.approx(loss))


def test_last_round_takes_the_last_version_although_it_is_worse(tmp_path: Path) -> None:
    wild = {"name": "sgd", "learning_rate": 10.0, "momentum": 0.9}
    contract = make_contract(
        algorithm={"name": "fedopt", "server_optimizer": wild},
        evaluation={"selection": "last_round", "score_bins": 16},
        rounds=6,
    )
    final = make_run(tmp_path, contract, DirectChannel(make_sites(contract))).run()
    found = validated(tmp_path)
    assert found[6][1] > min(loss for _, loss in found.values())
    assert (final.selection.version, loss_of(final.selection)) == (6, pytest.approx(found[6][1]))


@pytest.mark.parametrize("validation", [True, False])
def test_last_round_of_a_stopped_run_is_the_last_one_closed(tmp_path: Path, validation: bool) -> None:
    last = {"evaluation": {"selection": "last_round", "score_bins": 16}}
    contract = make_contract(validation=validation, **last)
    channel = DirectChannel(make_sites(contract), {(site, 3): MISCHIEF["lost"][2] for site in "abc"})
    with pytest.raises(QuorumError):
        make_run(tmp_path, contract, channel).run()
    latest = CheckpointStore(tmp_path / "checkpoints").latest(contract.study_hash)
    assert latest is not None
    assert latest.selection.version == 2
    assert torch.equal(latest.selection.model, latest.state["model"])


def test_a_study_without_validation_only_trains(tmp_path: Path) -> None:
    contract = make_contract(validation=False)
    channel = DirectChannel(make_sites(contract))
    final = make_run(tmp_path, contract, channel).run()
    assert {plan.work for _, plan in channel.plans} == {("train",)}
    assert final.selection.version == 3
    assert final.selection.losses == {}
    assert [event["event"] for event in events(tmp_path)] == ["round"] * 3


def test_where_no_site_has_validation_cases_the_last_version_is_taken(tmp_path: Path) -> None:
    """Not the initial parameters, which nobody compared with anything."""
    contract = make_contract()
    sites = make_sites(contract)
    for site in sites:
        site.cases["validation"] = 0
    final = make_run(tmp_path, contract, DirectChannel(sites)).run()
    assert final.selection.version == 3
    assert torch.equal(final.selection.model, final.state["model"])


# Algorithms that need single updates.


def test_single_updates_reach_an_algorithm_that_needs_them(tmp_path: Path) -> None:
    """A median of three: the coordinator keeps single updates on disk for it, in an order of their own."""
    contract = make_contract(rounds=2)

    class Median:
        needs_individual_updates = True

        def __getattr__(self, name: str) -> Any:
            return getattr(algorithm_for(contract.study.algorithm), name)

        def apply(self, state: dict[str, torch.Tensor], sums: Sums) -> dict[str, torch.Tensor]:
            stacked = torch.stack([update.vectors["model"] for update in sums.individual])
            assert sorted(update.weights["model"] for update in sums.individual) == [4, 6, 8]
            return {"model": state["model"] + stacked.median(0).values}

    def run(folder: Path, *, backwards: bool) -> Checkpoint:
        study = make_run(folder, contract, DirectChannel(make_sites(contract), backwards=backwards))
        study._algorithm = Median()  # type: ignore[assignment]
        return study.run()

    one, other = run(tmp_path / "1", backwards=False), run(tmp_path / "2", backwards=True)
    assert bits_of(one) == bits_of(other)
    mean = make_run(tmp_path / "3", contract, DirectChannel(make_sites(contract))).run()
    assert not torch.equal(one.state["model"], mean.state["model"])


@pytest.mark.parametrize("code", ["closed-round", "other-plan"])
def test_a_site_that_always_says_that_a_round_is_over_costs_the_others_little(
    tmp_path: Path, code: Any
) -> None:
    """Each attempt makes every other site train, and release, once more."""
    contract = make_contract(rounds=4, participation=quorum(2))
    always = {
        ("a", number): lambda plan, update: Refusal(plan=plan.identity, site="a", code=code)
        for number in range(5)
    }
    channel = DirectChannel(make_sites(contract), always)
    final = make_run(tmp_path, contract, channel).run()
    assert final.is_finished
    assert len([plan for name, plan in channel.plans if name == "b" and plan.round]) == 4 + MOST_NEW_ATTEMPTS
    assert all(
        part["status"] == "refused" for event in rounds_of(tmp_path) for part in event["participation"][:1]
    )


def test_every_site_may_say_that_a_round_is_over_after_a_restore(tmp_path: Path) -> None:
    """A site answers the first attempt that is newer than all that it knows, here the third."""

    def until_third(plan: RoundPlan, update: Update) -> Answer:
        refusal = Refusal(plan=plan.identity, site=plan.site, code="closed-round")
        return update if plan.attempt >= 3 else refusal

    contract = make_contract()
    channel = DirectChannel(make_sites(contract), {(name, 1): until_third for name in "abc"})
    make_run(tmp_path, contract, channel).run()
    assert rounds_of(tmp_path)[0]["attempt"] == 3
    assert {part["status"] for part in rounds_of(tmp_path)[0]["participation"]} == {"counted"}
