"""Checks of replies, one by one; the rounds' tests show that what fails them is not counted."""

from typing import Any

import numpy as np
import pytest

from fedcad.server.reply_checks import LARGEST_COUNT, check_refusal, check_update
from fedcad.shared.errors import FedCADError, InvalidUpdate, ProtocolError
from fedcad.shared.messages import Header, Refusal, RoundPlan, SiteInfo, Update, Work
from fedcad.shared.metrics.classification import ClassificationStatistics

FAMILY = ClassificationStatistics(("normal", "covid19"), 2)
SIZE = FAMILY.size
CASES = 5
STUDY = "1" * 64
INFO = SiteInfo(
    site="a", study_hash=STUDY, cases={"train": 3, "validation": CASES, "test": CASES}, summary=""
)


def make_plan(*work: Work) -> RoundPlan:
    return RoundPlan(study_hash=STUDY, site="a", round=5, work=work, broadcast_hash="2" * 64)


def make_update(asked: RoundPlan, vectors: Any = None, statistics: Any = None, **header: Any) -> Update:
    told = {"study_hash": STUDY, "plan": asked.identity, "round": 5, "site": "a"}
    told |= {"weights": dict.fromkeys(vectors or {}, 3)}
    told |= {"releases": (*(vectors or {}), *(statistics or {}))} | header
    return Update(Header(**told), vectors or {}, statistics or {})


def rows(count: int, value: Any = 1, dtype: Any = np.int64) -> Any:
    return np.full((count, SIZE), value, dtype=dtype)


def honest(count: int, cases: int = CASES) -> Any:
    """Statistics of cases, half of them wrongly called, in equal rows."""
    outputs = np.full((cases, 2), 0.5, dtype=np.float32)
    return FAMILY.collect(outputs, np.arange(cases) % 2, np.ones((count, cases), dtype=np.int64))


TRAIN = make_plan("validate", "train")
MODEL = {"model": np.zeros(2, dtype=np.float32)}


def check(update: Update, plan: RoundPlan = TRAIN, replicates: int = 0) -> None:
    check_update(update, plan=plan, info=INFO, family=FAMILY, replicates=replicates)


def test_honest_answers_pass() -> None:
    check(make_update(TRAIN, MODEL, {"validation": honest(1)}))
    test = make_plan("test")
    check(make_update(test, None, {"test": honest(8)}), test, replicates=7)
    nothing = INFO.model_copy(update={"cases": {"train": 3, "validation": 0, "test": 0}})
    check_update(make_update(TRAIN, MODEL), plan=TRAIN, info=nothing, family=FAMILY)


def test_a_replicate_may_weigh_other_cases_but_the_sample_may_not() -> None:
    test = make_plan("test")
    values = np.concatenate([honest(1), honest(1, 0), honest(1, 9)])
    check(make_update(test, None, {"test": values}), test, replicates=2)
    for cases in (0, CASES - 1, CASES + 1):
        with pytest.raises(InvalidUpdate, match=f"are of {cases} cases; the site enrolled with {CASES}"):
            check(make_update(test, None, {"test": honest(1, cases)}), test)


@pytest.mark.parametrize("cases", [0, CASES])
def test_statistics_of_a_part_without_enrolled_cases(cases: int) -> None:
    """Not even empty ones: their loss is infinite."""
    info = INFO.model_copy(update={"cases": {"train": 3, "validation": 0, "test": CASES}})
    update = make_update(TRAIN, MODEL, {"validation": honest(1, cases)})
    with pytest.raises(InvalidUpdate, match="of no enrolled cases"):
        check_update(update, plan=TRAIN, info=info, family=FAMILY)


@pytest.mark.parametrize("factor", [2, 2**20])
def test_statistics_of_many_times_the_cases(factor: int) -> None:
    """They do not contradict themselves."""
    with pytest.raises(InvalidUpdate, match=f"are of {CASES * factor} cases"):
        check(make_update(TRAIN, MODEL, {"validation": honest(1) * factor}))


def test_statistics_that_contradict_themselves() -> None:
    values = honest(1)
    values[0, 0] += 1
    with pytest.raises(InvalidUpdate, match="contradict"):
        check(make_update(TRAIN, MODEL, {"validation": values}))


def test_validation_that_is_owed() -> None:
    with pytest.raises(InvalidUpdate, match="validation are missing"):
        check(make_update(TRAIN, MODEL))


@pytest.mark.parametrize(
    "releases", [(), ("model",), ("model", "validation", "test"), ("model", "validation", "validation")]
)
def test_the_header_names_what_is_really_sent(releases: tuple[str, ...]) -> None:
    with pytest.raises(InvalidUpdate, match="its header says that it releases"):
        check(make_update(TRAIN, MODEL, {"validation": honest(1)}, releases=releases))
    check(make_update(TRAIN, MODEL, {"validation": honest(1)}, releases=("validation", "model")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site": "b"}, "signed 'b'"),
        ({"study_hash": "3" * 64}, "another study"),
        ({"round": 4}, "round 4"),
        ({"plan": "4" * 64}, "stale attempt"),
    ],
)
def test_confused_and_stale_answers(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        check(make_update(TRAIN, MODEL, **changes))


def test_an_answer_to_another_attempt_at_the_same_round_is_stale() -> None:
    again = TRAIN.model_copy(update={"attempt": 2})
    with pytest.raises(ProtocolError, match="stale attempt"):
        check(make_update(TRAIN, MODEL), again)


@pytest.mark.parametrize(
    "values",
    [
        rows(2),
        rows(0),
        rows(1)[0],
        rows(1)[:, :-1],
        rows(1)[None],
        rows(1, -1),
        rows(1, LARGEST_COUNT + 1),
        rows(1, 2**63 - 1),
        rows(1, 1.0, np.float64),
        rows(1, np.nan, np.float64),
        rows(1, 1, np.int32),
        rows(1, 1, ">i8"),
        rows(1, None, object),
    ],
    ids=lambda values: f"{values.dtype.str}-{values.shape}",
)
def test_statistics_of_another_form(values: Any) -> None:
    with pytest.raises(InvalidUpdate, match="statistics validation"):
        check(make_update(TRAIN, MODEL, {"validation": values}))


@pytest.mark.parametrize("name", ["test", "train", "", "validation "])
def test_statistics_that_were_not_asked_for(name: str) -> None:
    with pytest.raises(InvalidUpdate, match="not asked for"):
        check(make_update(TRAIN, MODEL, {name: rows(1)}))


def test_vectors_exactly_where_training_was_asked_for() -> None:
    with pytest.raises(InvalidUpdate, match="vectors"):
        check(make_update(TRAIN, None, {"validation": honest(1)}))
    validate = make_plan("validate")
    with pytest.raises(InvalidUpdate, match="vectors"):
        check(make_update(validate, MODEL, {"validation": honest(1)}), validate)


def test_sums_over_1023_sites_and_no_more_stay_inside_int64() -> None:
    assert LARGEST_COUNT * 1023 < 2**63 <= LARGEST_COUNT * 1024


def test_refusals_must_be_to_this_plan_from_this_site() -> None:
    refusal = Refusal(plan=TRAIN.identity, site="a", code="no-data")
    check_refusal(refusal, plan=TRAIN, site="a")
    for changes in ({"site": "b"}, {"plan": "0" * 64}):
        with pytest.raises(FedCADError, match="the refusal is signed"):
            check_refusal(refusal.model_copy(update=changes), plan=TRAIN, site="a")


@pytest.mark.parametrize("weights", [{}, {"control": 1}, {"model": 1, "control": 1}])
def test_weights_are_those_of_the_vectors_and_no_others(weights: dict[str, int]) -> None:
    update = make_update(TRAIN, MODEL, {"validation": honest(1)}, weights=weights)
    with pytest.raises(InvalidUpdate, match=r"weights of .* for vectors \['model'\]"):
        check(update)
