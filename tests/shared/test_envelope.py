"""Signed texts: nothing can be changed, added, taken away or used for another purpose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.envelope import (
    ANSWER,
    PLAN,
    SIGNATURE,
    Hashes,
    ready_purpose,
    sign_texts,
    verify_texts,
)
from fedcad.shared.errors import IdentityError
from fedcad.shared.messages import Header, Update
from fedcad.shared.signing import SigningKey

KEY = SigningKey.generate()
TEXTS = st.dictionaries(st.text(max_size=8).filter(lambda name: name != SIGNATURE), st.text(max_size=20))


@given(TEXTS)
def test_what_is_signed_is_accepted(texts: dict[str, str]) -> None:
    verify_texts(sign_texts(texts, PLAN, KEY), PLAN, KEY.public)


@given(TEXTS, TEXTS)
def test_other_texts_are_refused(texts: dict[str, str], others: dict[str, str]) -> None:
    if texts == others:
        return
    signature = sign_texts(texts, PLAN, KEY)[SIGNATURE]
    with pytest.raises(IdentityError):
        verify_texts({**others, SIGNATURE: signature}, PLAN, KEY.public)


def test_another_purpose_key_or_none_is_refused() -> None:
    signed = sign_texts({"plan": "x"}, PLAN, KEY)
    for purpose, key in [
        (ANSWER, KEY.public),
        (ready_purpose("1"), KEY.public),
        (PLAN, SigningKey.generate().public),
    ]:
        with pytest.raises(IdentityError):
            verify_texts(signed, purpose, key)
    with pytest.raises(IdentityError, match="not signed"):
        verify_texts({"plan": "x"}, PLAN, KEY.public)


def test_an_old_answer_fits_no_new_question() -> None:
    signed = sign_texts({"siteinfo": "x"}, ready_purpose("a"), KEY)
    verify_texts(signed, ready_purpose("a"), KEY.public)
    with pytest.raises(IdentityError):
        verify_texts(signed, ready_purpose("b"), KEY.public)


def test_hashes_name_every_array() -> None:
    header = Header(study_hash="0" * 64, plan="1" * 64, round=1, site="a", weights={"model": 1})
    update = Update(header, {"model": np.zeros(3, np.float32)}, {"validation": np.zeros((1, 2), np.int64)})
    other_vector = Update(header, {"model": np.ones(3, np.float32)}, update.statistics)
    other_name = Update(header, {"control": np.zeros(3, np.float32)}, update.statistics)
    other_statistics = Update(header, update.vectors, {"validation": np.ones((1, 2), np.int64)})
    hashes = {
        Hashes.of(each).model_dump_json() for each in (update, other_vector, other_name, other_statistics)
    }
    assert len(hashes) == 4


@pytest.mark.parametrize("texts", [{"plan": "\ud800"}, {"\ud800": "x"}])
def test_text_that_is_no_unicode_is_refused_and_raises_nothing_else(texts: dict[str, str]) -> None:
    with pytest.raises(IdentityError, match="no Unicode"):
        verify_texts({**texts, SIGNATURE: "0" * 128}, PLAN, KEY.public)
