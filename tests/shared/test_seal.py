"""Seals: only the coordinator's, for this contract, in its time, for this version."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_factory import make_contract

from fedcad.shared import seal as module
from fedcad.shared.canonical import canonical_json
from fedcad.shared.errors import FedCADError, IdentityError, ProtocolError
from fedcad.shared.seal import Seal, sign_seal, verify_seal
from fedcad.shared.signing import SigningKey

KEY = SigningKey.generate()
TERMS = make_contract().terms
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def make_seal(**changes: Any) -> Seal:
    facts: dict[str, Any] = {
        "consortium": "north",
        "study": TERMS.study.name,
        "version": 1,
        "study_hash": TERMS.study_hash,
        "issued": NOW.isoformat(),
        "expires": (NOW + timedelta(days=30)).isoformat(),
    }
    return Seal(**(facts | changes))


def verify(text: object = None, *, contract: object = None, now: datetime = NOW) -> object:
    text = sign_seal(make_seal(), KEY).text() if text is None else text
    contract = TERMS.text() if contract is None else contract
    return verify_seal(contract, text, coordinator=KEY.public, now=now)


def test_a_sealed_contract_comes_back() -> None:
    assert verify() == TERMS


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_changed_seal_is_accepted(data) -> None:  # type: ignore[no-untyped-def]
    text = sign_seal(make_seal(), KEY).text()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="ascii")) + text[place + 1 :]
    if changed == text:
        return
    with pytest.raises(FedCADError):
        verify(changed)


def test_another_contract_or_key_is_refused() -> None:
    other = make_contract(rounds=9)
    with pytest.raises(IdentityError, match="another contract"):
        verify(contract=other.terms.text())
    with pytest.raises(IdentityError):
        verify(sign_seal(make_seal(), SigningKey.generate()).text())
    with pytest.raises(IdentityError, match="another contract"):
        verify(sign_seal(make_seal(study="other"), KEY).text())


def test_a_contract_has_its_time() -> None:
    verify(now=NOW + timedelta(days=29))
    verify(now=NOW - timedelta(minutes=9))
    with pytest.raises(IdentityError, match="ended at"):
        verify(now=NOW + timedelta(days=30))
    with pytest.raises(IdentityError, match="set the clock"):
        verify(now=NOW - timedelta(minutes=11))


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sign_seal(make_seal(fedcad="0.0.9"), KEY).text()
    with pytest.raises(IdentityError, match=r"FedCAD 0\.0\.9; this is"):
        verify(text)
    assert module.__version__ != "0.0.9"


@pytest.mark.parametrize("time", ["yesterday", "2026-11-25T12:00:00"])
def test_times_are_times_with_zones(time: str) -> None:
    with pytest.raises(ProtocolError):
        verify(sign_seal(make_seal(issued=time), KEY).text())


@pytest.mark.parametrize("text", [None, 3, "", "{}", "[]", "x" * 2_000_000])
def test_other_text_is_no_seal(text: object) -> None:
    with pytest.raises(ProtocolError):
        verify_seal(TERMS.text(), text, coordinator=KEY.public, now=NOW)


def test_unknown_facts_are_refused() -> None:
    plain = json.loads(sign_seal(make_seal(), KEY).text())
    plain["seal"]["code"] = "print()"
    with pytest.raises(ProtocolError):
        verify(canonical_json(plain).decode())
