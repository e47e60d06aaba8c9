import functools
from datetime import datetime, timedelta

import pytest
from consortium_factory import NOW
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.certificates import (
    BACKDATED,
    Authority,
    Member,
    authority_fingerprint,
    check_certificate,
    load_certificate,
    make_authority,
    make_server_certificate,
    make_site_certificate,
    node_key_hash,
    pem_of,
    read_authority,
    read_certificate,
)
from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import SigningKey


@functools.cache
def authority() -> Authority:
    return make_authority("lungs", now=NOW, days=7300)


@functools.cache
def member() -> Member:
    node = ec.generate_private_key(ec.SECP384R1()).public_key()
    return Member("north", SigningKey.generate().public, node_key_hash(node), SigningKey.generate().public)


@functools.cache
def site_pem() -> str:
    return pem_of(make_site_certificate(authority(), member(), consortium="lungs", now=NOW, days=365))


def check(pem: str, at: datetime = NOW) -> Member:
    return check_certificate(pem, authority().pem, now=at).member


def test_a_certificate_says_whose_it_is() -> None:
    facts = check_certificate(site_pem(), authority().pem, now=NOW)
    assert facts.member == member()
    assert facts.issued == NOW - BACKDATED
    assert facts.expires == NOW + timedelta(days=365)


@settings(max_examples=300)
@given(place=st.integers(0, 10_000), replacement=st.integers(0, 255))
def test_any_changed_byte_is_refused(place: int, replacement: int) -> None:
    raw = bytearray(site_pem().encode())
    place %= len(raw)
    if raw[place] == replacement:
        return
    raw[place] = replacement
    with pytest.raises(IdentityError):
        check(raw.decode("latin-1"))


@settings(max_examples=200)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_changed_bit_of_the_content_is_refused(place: int, bit: int) -> None:
    """Changes inside the DER form, re-encoded as PEM, so that the signature alone must notice."""
    from base64 import encodebytes

    from cryptography.hazmat.primitives.serialization import Encoding

    der = bytearray(load_certificate(site_pem(), "it").public_bytes(Encoding.DER))
    der[place % len(der)] ^= 1 << bit
    lines = encodebytes(bytes(der)).decode().replace("\n", "")
    body = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
    with pytest.raises(IdentityError):
        check(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize("pem", ["", "x", "é", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(pem: str) -> None:
    with pytest.raises(IdentityError, match="damaged"):
        check(pem)


def test_more_than_one_certificate_and_long_texts_are_refused() -> None:
    with pytest.raises(IdentityError, match="rewritten"):
        check(site_pem() * 2)
    with pytest.raises(IdentityError, match="longer than"):
        check(site_pem() * 99)


@pytest.mark.parametrize(
    ("at", "allowed"),
    [
        (-BACKDATED - timedelta(seconds=1), False),
        (-BACKDATED, True),
        (timedelta(days=365) - timedelta(seconds=1), True),
        (timedelta(days=365), False),
    ],
)
def test_dates_by_hand(at: timedelta, allowed: bool) -> None:
    if allowed:
        check(site_pem(), NOW + at)
        return
    with pytest.raises(IdentityError):
        check(site_pem(), NOW + at)


def test_errors_of_time_name_both_times() -> None:
    with pytest.raises(
        IdentityError, match="from 2026-11-25 11:00:00 UTC, but it is 2026-11-20 12:00:00 UTC"
    ):
        check(site_pem(), NOW - timedelta(days=5))
    with pytest.raises(
        IdentityError, match="ended at 2027-11-25 12:00:00 UTC, and it is 2028-11-24 12:00:00 UTC"
    ):
        check(site_pem(), NOW + timedelta(days=730))
    assert read_certificate(site_pem(), authority().pem).member == member()  # whoever asks whose it was


def test_another_authority_of_the_same_name_is_refused() -> None:
    other = make_authority("lungs", now=NOW, days=7300)
    with pytest.raises(IdentityError, match="not of the authority"):
        check_certificate(site_pem(), other.pem, now=NOW)


def test_a_site_cannot_sign_for_others() -> None:
    with pytest.raises(IdentityError, match="may not sign others"):
        read_authority(site_pem())
    with pytest.raises(IdentityError):
        check_certificate(authority().pem, authority().pem, now=NOW)


def test_no_certificate_outlives_its_authority() -> None:
    short = make_authority("lungs", now=NOW, days=10)
    made = make_site_certificate(short, member(), consortium="lungs", now=NOW, days=365)
    assert made.not_valid_after_utc == NOW + timedelta(days=10)


def test_a_server_certificate_is_no_sites() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    made = make_server_certificate(authority(), key, ["host.example", "::1"], now=NOW, days=9)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["::1"]
    with pytest.raises(IdentityError, match="not one that FedCAD makes"):
        check(pem_of(made))


def test_fingerprint_is_the_one_that_openssl_prints() -> None:
    digest = authority().certificate.fingerprint(hashes.SHA256()).hex()
    assert authority_fingerprint(authority().certificate).replace(" ", "") == digest
