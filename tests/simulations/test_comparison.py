"""Hand-worked figures on statistics of a few cases."""

import numpy as np
import pytest
import tiny_study

from fedcad.shared.metrics.registry import statistics_for
from fedcad.simulations.comparison import EXTERNAL, MEAN, UNION, WITHOUT, TestResults

FAMILY = statistics_for(tiny_study.make_study(task={"kind": "classification", "classes": ["no", "yes"]}))
LABELS = np.array([0, 0, 1, 1])
WEIGHTS = np.ones((1, 4), dtype=np.int64)


def statistics(scores, labels=LABELS, weights=None):
    scores = np.asarray(scores, dtype=np.float32)
    outputs = np.stack([1 - scores, scores], axis=1)
    weights = np.ones((1, len(labels)), dtype=np.int64) if weights is None else weights
    return FAMILY.collect(outputs, np.asarray(labels), weights)


PERFECT = [0.1, 0.2, 0.8, 0.9]  # AUROC 1
HALF = [0.1, 0.9, 0.2, 0.8]  # pairs won: 2 of 4
WRONG = [0.8, 0.9, 0.1, 0.2]  # AUROC 0


def results(**more):
    models = {
        "federated": {"a": statistics(PERFECT), "b": statistics(HALF)},
        "alone-a": {"a": statistics(HALF), "b": statistics(WRONG)},
        "alone-b": {"a": statistics(WRONG), "b": statistics(HALF)},
        "pooled": {"a": statistics(PERFECT), "b": statistics(PERFECT)},
    }
    return TestResults(FAMILY, models | more, {"a": "alone-a", "b": "alone-b"})


def by_place(items, **wanted):
    return {item["on"]: item for item in items if all(item[k] == v for k, v in wanted.items())}


def test_alone_is_each_sites_own_model():
    found = by_place(results().comparisons(), against="alone")
    assert found["a"]["difference"] == pytest.approx(0.5)
    assert found["b"]["difference"] == pytest.approx(0.0)
    assert found[MEAN]["difference"] == pytest.approx(0.25)
    assert found[MEAN]["sites"] == ["a", "b"]
    assert found[MEAN]["left_out"] == []
    assert UNION not in found


def test_pooled_is_compared_on_the_union_too():
    found = by_place(results().comparisons(), against="pooled")
    assert found["b"]["difference"] == pytest.approx(-0.5)
    assert found[MEAN]["difference"] == pytest.approx(-0.25)
    # Union of PERFECT and HALF: yes 0.8 0.9 0.2 0.8 against no 0.1 0.2 0.1 0.9.
    yes, no = [0.8, 0.9, 0.2, 0.8], [0.1, 0.2, 0.1, 0.9]
    won = np.mean([[(y > n) + 0.5 * (y == n) for y in yes] for n in no])
    assert found[UNION]["difference"] == pytest.approx(won - 1.0)


def test_one_class_site_drops_out_of_the_mean_by_name():
    one_class = statistics(PERFECT, labels=[1, 1, 1, 1])
    found = by_place(
        results(
            **{
                "federated": {"a": statistics(PERFECT), "b": one_class},
                "alone-b": {"a": statistics(WRONG), "b": one_class},
            }
        ).comparisons(),
        against="alone",
    )
    assert found["b"]["difference"] is None
    assert found["b"]["undefined"]
    assert found[MEAN]["difference"] == pytest.approx(0.5)
    assert found[MEAN]["left_out"] == ["b"]


def test_nowhere_defined_is_said():
    one_class = statistics(PERFECT, labels=[1, 1, 1, 1])
    nothing = {
        name: {"a": one_class, "b": one_class} for name in ("federated", "alone-a", "alone-b", "pooled")
    }
    found = by_place(results(**nothing).comparisons(), against="alone")
    assert found[MEAN]["difference"] is None
    assert "every site" in found[MEAN]["undefined"]


def test_intervals_are_paired():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 40)
    scores = np.clip(labels * 0.3 + generator.random(40) * 0.7, 0, 1)
    weights = np.concatenate([np.ones((1, 40), np.int64), generator.poisson(1, (60, 40))])
    same = statistics(scores, labels, weights)
    found = by_place(
        TestResults(FAMILY, {"federated": {"a": same}, "pooled": {"a": same}}, {}).comparisons(), on="a"
    )
    assert found["a"]["interval"] == [0.0, 0.0]
    [evaluation] = [
        each
        for each in TestResults(FAMILY, {"federated": {"a": same}}, {}).evaluations()
        if each["on"] == "a"
    ]
    low, high = evaluation["interval"]
    assert low < evaluation["metrics"][FAMILY.primary]["value"] < high


def test_evaluations_cover_every_model_and_place_and_keep_curves_where_shown():
    found = {(each["model"], each["on"]): each for each in results().evaluations()}
    assert len(found) == 4 * 3
    assert found["alone-a", "a"]["curves"]
    assert found["alone-a", "b"]["curves"] == {}
    assert found["federated", "b"]["curves"]


def with_external():
    """Sites a and b train; at x, which never does, federated is wrong and everything else perfect."""
    base = results()
    models = {name: dict(sites) for name, sites in base.models.items()}
    models["ensemble"] = {"a": statistics(HALF), "b": statistics(HALF)}
    for name, sites in models.items():
        sites["x"] = statistics(WRONG if name == "federated" else PERFECT)
    return TestResults(FAMILY, models, base.own, external=["x"])


@pytest.mark.parametrize("against", ["alone", "ensemble", "pooled"])
def test_mean_is_over_the_same_training_sites_whatever_is_compared(against):
    found = by_place(with_external().comparisons(), against=against)
    assert found[MEAN]["sites"] == ["a", "b"]
    without_x = by_place(
        results(ensemble={"a": statistics(HALF), "b": statistics(HALF)}).comparisons(), against=against
    )
    assert found[MEAN]["difference"] == without_x[MEAN]["difference"]


def test_union_is_that_of_training_sites_and_external_ones_are_apart():
    found = by_place(with_external().comparisons(), against="pooled")
    plain = by_place(results().comparisons(), against="pooled")
    assert found[UNION]["difference"] == plain[UNION]["difference"]
    assert found["x"]["difference"] == found[EXTERNAL]["difference"] == pytest.approx(-1.0)
    places = {each["on"] for each in with_external().evaluations() if each["model"] == "federated"}
    assert places == {"a", "b", "x", UNION, EXTERNAL}
    assert EXTERNAL not in {each["on"] for each in results().evaluations()}


def test_only_external_sites_tested_leave_no_union_and_no_mean():
    tests = TestResults(
        FAMILY, {m: {"x": statistics(HALF)} for m in ("federated", "pooled")}, {}, external=["x"]
    )
    assert {each["on"] for each in tests.evaluations()} == {"x", EXTERNAL}
    assert {each["on"] for each in tests.comparisons()} == {"x", EXTERNAL}


def test_left_out_site_is_compared_with_the_model_that_never_saw_it():
    left_out = {name: f"without-{name}" for name in ("a", "b")}
    base = results(
        **{
            "without-a": {"a": statistics(WRONG), "b": statistics(PERFECT)},
            "without-b": {"a": statistics(PERFECT), "b": statistics(PERFECT)},
        }
    )
    tests = TestResults(FAMILY, base.models, base.own, left_out=left_out)
    found = list(tests.comparisons())
    federated = by_place(found, against=WITHOUT, model="federated")
    assert {place: each["difference"] for place, each in federated.items()} == {
        "a": pytest.approx(1.0),
        "b": pytest.approx(-0.5),
        MEAN: pytest.approx(0.25),
    }
    alone = by_place(found, against=WITHOUT, model="alone")
    assert {place: each["difference"] for place, each in alone.items()} == {
        "a": pytest.approx(0.5),
        "b": pytest.approx(-0.5),
    }
    assert not by_place(results().comparisons(), against=WITHOUT)
