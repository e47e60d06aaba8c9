"""Headers: round trips, identities, and text that is not a header."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.errors import ProtocolError
from fedcad.shared.messages import (
    LARGEST_HEADER_BYTES,
    LARGEST_ROUND,
    LARGEST_WEIGHT,
    MOST_VECTORS,
    Header,
    Refusal,
    RoundPlan,
    SiteInfo,
    decode,
    encode,
)

hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
sites = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
rounds = st.integers(0, LARGEST_ROUND)
plans = st.builds(
    RoundPlan,
    study_hash=hashes,
    site=sites,
    round=rounds,
    attempt=st.integers(1, 5),
    work=st.lists(st.sampled_from(["validate", "train", "test"]), min_size=1, max_size=3, unique=True).map(
        tuple
    ),
    broadcast_hash=hashes,
    last_counted_round=rounds,
    selected_round=rounds,
)
messages = st.one_of(
    plans,
    st.builds(
        Header,
        study_hash=hashes,
        plan=hashes,
        round=rounds,
        site=sites,
        weights=st.dictionaries(
            st.text(min_size=1, max_size=100), st.integers(1, LARGEST_WEIGHT), max_size=MOST_VECTORS
        ),
        releases=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    ),
    st.builds(Refusal, plan=hashes, site=sites, code=st.sampled_from(["wrong-study", "no-data"])),
    st.builds(
        SiteInfo,
        site=sites,
        study_hash=hashes,
        cases=st.fixed_dictionaries(
            {part: st.integers(0, LARGEST_WEIGHT) for part in ("train", "validation", "test")}
        ),
        summary=st.text(max_size=10),
    ),
)


@given(messages)
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_comes_back(message: Frozen) -> None:
    try:
        text = encode(message)
    except UnicodeEncodeError:
        return
    assert decode(type(message), text) == message


@given(plans, plans)
@settings(max_examples=40, deadline=None)
def test_plans_have_one_identity_exactly_if_they_are_equal(one: RoundPlan, other: RoundPlan) -> None:
    assert (one.identity == other.identity) == (one == other)
    assert decode(RoundPlan, encode(one)).identity == one.identity


PLAN = RoundPlan(study_hash="0" * 64, site="a", round=3, work=("train",), broadcast_hash="1" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 4},
        {"attempt": 2},
        {"work": ("validate",)},
        {"work": ("train", "train")},
        {"broadcast_hash": "2" * 64},
        {"study_hash": "2" * 64},
        {"site": "b"},
        {"last_counted_round": 1},
        {"selected_round": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_part_of_a_plans_identity(change: dict[str, Any]) -> None:
    assert PLAN.model_copy(update=change).identity != PLAN.identity


def test_a_plan_carries_no_seed_and_no_privacy_parameter() -> None:
    assert set(RoundPlan.model_fields) == {
        "protocol",
        "study_hash",
        "site",
        "round",
        "attempt",
        "stage",
        "work",
        "broadcast_hash",
        "last_counted_round",
        "selected_round",
    }


GOOD = {
    RoundPlan: json.loads(encode(PLAN)),
    Header: {"study_hash": "0" * 64, "plan": "1" * 64, "round": 1, "site": "a", "weights": {"model": 1}},
    Refusal: {"plan": "1" * 64, "site": "a", "code": "no-data"},
    SiteInfo: {
        "site": "a",
        "study_hash": "0" * 64,
        "cases": {"train": 1, "validation": 0, "test": 0},
        "summary": "",
    },
}
WRONG: list[tuple[type[Frozen], str, Any]] = [
    (RoundPlan, "protocol", 2),
    (RoundPlan, "round", -1),
    (RoundPlan, "round", LARGEST_ROUND + 1),
    (RoundPlan, "round", 1.0),
    (RoundPlan, "round", "1"),
    (RoundPlan, "round", True),
    (RoundPlan, "round", None),
    (RoundPlan, "attempt", 0),
    (RoundPlan, "stage", "keys"),
    (RoundPlan, "work", []),
    (RoundPlan, "work", ["steal"]),
    (RoundPlan, "work", "train"),
    (RoundPlan, "work", ["train", "train"]),
    (RoundPlan, "work", ["train", "validate", "test", "train"]),
    (RoundPlan, "study_hash", "0" * 63),
    (RoundPlan, "study_hash", "A" * 64),
    (RoundPlan, "study_hash", "0" * 64 + "\n"),
    (RoundPlan, "last_counted_round", -1),
    (RoundPlan, "seed", 1),
    (Header, "weights", {"model": -1}),
    (Header, "weights", {"model": LARGEST_WEIGHT + 1}),
    (Header, "weights", {"model": 1.5}),
    (Header, "weights", {"model": 10**400}),
    (Header, "weights", {"model": 0}),
    (Header, "weights", {"": 1}),
    (Header, "weights", {"x" * 101: 1}),
    (Header, "weights", {f"v{number}": 1 for number in range(MOST_VECTORS + 1)}),
    (Header, "weights", [1]),
    (Header, "site", ""),
    (Header, "site", "A"),
    (Header, "site", "../a"),
    (Header, "site", "a" * 65),
    (Header, "site", "a\n"),
    (Header, "releases", "model"),
    (Header, "releases", [str(number) for number in range(65)]),
    (Refusal, "code", "because"),
    (Refusal, "text", "patient 4711"),
    (SiteInfo, "cases", {}),
    (SiteInfo, "cases", {"train": 1, "validation": 1}),
    (SiteInfo, "cases", {"train": 1, "validation": 1, "test": 1, "secret": 1}),
    (SiteInfo, "cases", {"train": -1, "validation": 1, "test": 1}),
    (SiteInfo, "cases", {"train": LARGEST_WEIGHT + 1, "validation": 1, "test": 1}),
    (SiteInfo, "cases", {"train": 1.0, "validation": 1, "test": 1}),
    (SiteInfo, "summary", {}),
]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_the_good_ones_are_good_and_need_every_field_without_a_default(kind: type[Frozen]) -> None:
    good = GOOD[kind]
    decode(kind, json.dumps(good))
    for name, field in kind.model_fields.items():
        if field.is_required():
            with pytest.raises(ProtocolError, match=name):
                decode(kind, json.dumps({key: value for key, value in good.items() if key != name}))


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_one_wrong_field_is_named(kind: type[Frozen], name: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=f"{kind.__name__} is not valid: {name}"):
        decode(kind, json.dumps(GOOD[kind] | {name: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "\ud800", "[" * 100_000, "NaN"])
def test_text_that_is_no_header(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(Header, text)


@pytest.mark.parametrize("value", [None, 3, b"{}", ["{}"], {}])
def test_what_is_not_text(value: object) -> None:
    with pytest.raises(ProtocolError, match="must be JSON text"):
        decode(Header, value)


def test_text_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(ProtocolError, match=f"at most {LARGEST_HEADER_BYTES}"):
        decode(Header, json.dumps(GOOD[Header]) + " " * LARGEST_HEADER_BYTES)


def test_what_was_given_is_never_repeated_at_length() -> None:
    for hostile in ({"k" * 10_000: 1}, {"site": "p" * 10_000}, {"site": "Patient Meier"}):
        with pytest.raises(ProtocolError) as caught:
            decode(Header, json.dumps(GOOD[Header] | hostile))
        assert len(str(caught.value)) < 400
        assert "Meier" not in str(caught.value)


@given(st.text(max_size=40) | st.binary(max_size=10))
@settings(max_examples=60, deadline=None)
def test_noise_is_only_ever_a_protocol_error(noise: str | bytes) -> None:
    for kind in GOOD:
        with pytest.raises(ProtocolError):
            decode(kind, noise)
