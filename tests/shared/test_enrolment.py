import functools
import json
from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.certificates import Authority, Member, make_authority, make_site_certificate, pem_of
from fedcad.shared.enrolment import (
    LARGEST_FILE_BYTES,
    Enrolment,
    EnrolmentRequest,
    file_text,
    member_key_hash,
    node_key_from,
    openssh_text,
    parse,
    read_file,
)
from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import SigningKey

NODE = ec.generate_private_key(ec.SECP384R1())
SITE = SigningKey.generate()
COORDINATOR = SigningKey.generate()


@functools.cache
def asked() -> EnrolmentRequest:
    return EnrolmentRequest.make("north", NODE, SITE, now=NOW)


@functools.cache
def authority() -> Authority:
    return make_authority("lungs", now=NOW, days=7300)


def granted(
    *, site: str = "north", named: SigningKey = COORDINATOR, key: SigningKey = COORDINATOR
) -> Enrolment:
    member = Member("north", SITE.public, member_key_hash(asked()), named.public)
    certificate = make_site_certificate(authority(), member, consortium="lungs", now=NOW, days=365)
    content = {
        "consortium": "lungs",
        "site": site,
        "address": "fedcad.example.org:8443",
        "ca_pem": authority().pem,
        "certificate": pem_of(certificate),
        "issued": NOW.isoformat(),
        "expires": certificate.not_valid_after_utc.isoformat(),
    }
    return Enrolment.make(content, key)


GRANTED = granted()


def test_a_request_proves_itself_and_travels_as_a_file(tmp_path: Path) -> None:
    asked().verify()
    path = tmp_path / "request.json"
    path.write_bytes(file_text(asked()))
    assert read_file(path, EnrolmentRequest, "a request") == asked()
    assert asked().fingerprint == SITE.public.fingerprint
    assert asked().node_public_key == NODE.public_key()


def test_a_request_holds_no_secret() -> None:
    text = file_text(asked()).decode()
    assert "PRIVATE" not in text
    assert SITE._key.private_bytes_raw().hex() not in text
    assert f"{NODE.private_numbers().private_value:x}" not in text


@settings(max_examples=400)
@given(place=st.integers(0, 10_000), replacement=st.integers(0, 255))
def test_any_changed_byte_of_a_request_is_refused(place: int, replacement: int) -> None:
    raw = bytearray(file_text(asked()).rstrip())
    place %= len(raw)
    if raw[place] == replacement:
        return
    raw[place] = replacement
    with pytest.raises(IdentityError):
        parse(bytes(raw), EnrolmentRequest, "a request").verify()


@settings(max_examples=400)
@given(place=st.integers(0, 10_000), replacement=st.integers(0, 255))
def test_any_changed_byte_of_an_enrolment_is_refused(place: int, replacement: int) -> None:
    raw = bytearray(file_text(GRANTED).rstrip())
    place %= len(raw)
    if raw[place] == replacement:
        return
    raw[place] = replacement
    with pytest.raises(IdentityError):
        parse(bytes(raw), Enrolment, "an enrolment").verify(now=NOW)


def test_what_mail_programs_do_to_line_ends_is_forgiven() -> None:
    content = file_text(asked())
    for changed in (content.replace(b"\n", b"\r\n"), content + b"\n\n", content.rstrip()):
        assert parse(changed, EnrolmentRequest, "a request") == asked()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"site": 1}', b'{"kind": "fedcad-enrolment"}'],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    with pytest.raises(IdentityError, match=r"request\.json"):
        read_file(path, EnrolmentRequest, "a request")


def test_the_wrong_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"expected a request; this is an enrolment$"):
        parse(file_text(GRANTED), EnrolmentRequest, "expected a request")
    with pytest.raises(IdentityError, match=r"expected an enrolment; this is a request$"):
        parse(file_text(asked()), Enrolment, "expected an enrolment")
    with pytest.raises(IdentityError, match="another kind of file, or damaged"):
        parse(authority().pem.encode(), Enrolment, "expected an enrolment")


def test_large_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b" " * (LARGEST_FILE_BYTES + 1))
    with pytest.raises(IdentityError, match="larger than"):
        read_file(path, EnrolmentRequest, "a request")
    for absent in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(IdentityError, match="cannot be read"):
            read_file(absent, EnrolmentRequest, "a request")


def resigned(**changes: object) -> EnrolmentRequest:
    """A request that its signing key signed again after a change."""
    from fedcad.shared.canonical import canonical_json

    content = {**asked().model_dump(mode="json", exclude={"signature"}), **changes}
    return EnrolmentRequest(**content, signature=SITE.sign("enrolment request", canonical_json(content)))


def test_the_node_key_must_be_the_sites_own() -> None:
    """Whoever copies another site's public node key cannot enrol it as theirs."""
    resigned().verify()
    foreign = openssh_text(ec.generate_private_key(ec.SECP384R1()).public_key())
    for change in (
        {"node_key": foreign},
        {"site": "south"},
        {"node_signature": "00"},
        {"node_signature": "0"},
    ):
        with pytest.raises(IdentityError, match="node key"):
            resigned(**change).verify()


def test_only_p384_in_its_one_form_is_a_node_key() -> None:
    text = openssh_text(NODE.public_key())
    assert node_key_from(text) == NODE.public_key()
    other = openssh_text(ec.generate_private_key(ec.SECP256R1()).public_key())
    for wrong in (f"{text} comment", text[:-4], "", "ecdsa-sha2-nistp384 AAAA"):
        with pytest.raises(IdentityError):
            node_key_from(wrong)
    with pytest.raises(ValueError, match="node_key"):
        EnrolmentRequest(**{**asked().model_dump(), "node_key": other})


def test_an_enrolment_ties_its_parts_together() -> None:
    facts = GRANTED.verify(now=NOW)
    assert facts.member.signing_key == SITE.public
    assert (GRANTED.host, GRANTED.port) == ("fedcad.example.org", 8443)
    with pytest.raises(IdentityError, match="another key than the one its authority names"):
        granted(key=SigningKey.generate()).verify(now=NOW)
    with pytest.raises(IdentityError, match="for 'south', but its certificate for 'north'"):
        granted(site="south").verify(now=NOW)


def test_an_enrolment_ends() -> None:
    with pytest.raises(IdentityError, match="ended at"):
        GRANTED.verify(now=NOW + timedelta(days=366))
    assert GRANTED.facts().member.site == "north"


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    content = json.loads(file_text(asked()))
    from fedcad.shared.canonical import canonical_json

    del content["signature"]
    wrong = EnrolmentRequest(**content, signature=SITE.sign("enrolment", canonical_json(content)))
    with pytest.raises(IdentityError, match="not of the key"):
        wrong.verify()
