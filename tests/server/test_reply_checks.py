"""Checks of replies, one by one; the rounds' tests show that what fails them is not counted."""

from typing import Any

import numpy as np
import pytest

from fedcad.server.reply_checks import LARGEST_COUNT, check_refusal, check_update
from fedcad.shared.errors import FedCADError, InvalidUpdate, ProtocolError
from fedcad.shared.messages import Header, Refusal, RoundPlan, Update, Work

SIZE = 4
STUDY = "1" * 64


def make_plan(*work: Work) -> RoundPlan:
    return RoundPlan(study_hash=STUDY, round=5, work=work, broadcast_hash="2" * 64)


def make_update(asked: RoundPlan, vectors: Any = None, statistics: Any = None, **header: Any) -> Update:
    told = {"study_hash": STUDY, "plan": asked.identity, "round": 5, "site": "a", "weight": 3} | header
    return Update(Header(**told), vectors or {}, statistics or {})


def rows(count: int, value: Any = 1, dtype: Any = np.int64) -> Any:
    return np.full((count, SIZE), value, dtype=dtype)


TRAIN = make_plan("validate", "train")
MODEL = {"model": np.zeros(2, dtype=np.float32)}


def check(update: Update, plan: RoundPlan = TRAIN, replicates: int = 0) -> None:
    check_update(update, plan=plan, site="a", statistics_size=SIZE, replicates=replicates)


def test_honest_answers_pass() -> None:
    check(make_update(TRAIN, MODEL, {"validation": rows(1)}))
    check(make_update(TRAIN, MODEL))
    test = make_plan("test")
    check(make_update(test, None, {"test": rows(8)}), test, replicates=7)
    check(make_update(TRAIN, MODEL, {"validation": rows(1, LARGEST_COUNT)}))
    check(make_update(TRAIN, MODEL, {"validation": rows(1, 0)}))


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
        check(make_update(TRAIN))
    validate = make_plan("validate")
    with pytest.raises(InvalidUpdate, match="vectors"):
        check(make_update(validate, MODEL), validate)


def test_sums_over_many_sites_stay_inside_int64() -> None:
    assert LARGEST_COUNT * 1000 < 2**63


def test_refusals_must_be_to_this_plan_from_this_site() -> None:
    honest = Refusal(plan=TRAIN.identity, site="a", code="no-data")
    check_refusal(honest, plan=TRAIN, site="a")
    for changes in ({"site": "b"}, {"plan": "0" * 64}):
        with pytest.raises(FedCADError, match="the refusal is signed"):
            check_refusal(honest.model_copy(update=changes), plan=TRAIN, site="a")
