import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.errors import IdentityError
from fedcad.shared.secret_files import write_secret
from fedcad.shared.signing import PublicKey, SigningKey, fingerprint_of, same_fingerprint

KEY = SigningKey.generate()
purposes = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(purpose=purposes, message=st.binary(max_size=50))
def test_a_signature_verifies(purpose: str, message: bytes) -> None:
    KEY.public.verify(purpose, message, KEY.sign(purpose, message))


@given(message=st.binary(max_size=50), bit=st.integers(0, 511))
def test_a_changed_bit_of_the_signature_is_refused(message: bytes, bit: int) -> None:
    raw = bytearray.fromhex(KEY.sign("plan", message))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IdentityError):
        KEY.public.verify("plan", message, raw.hex())


@given(message=st.binary(min_size=1, max_size=50), place=st.integers(0, 49), change=st.integers(1, 255))
def test_a_changed_byte_of_the_message_is_refused(message: bytes, place: int, change: int) -> None:
    changed = bytearray(message)
    changed[place % len(message)] ^= change
    with pytest.raises(IdentityError):
        KEY.public.verify("plan", bytes(changed), KEY.sign("plan", message))


@given(purpose=purposes, other=purposes, message=st.binary(max_size=50))
def test_a_signature_for_another_purpose_is_refused(purpose: str, other: str, message: bytes) -> None:
    if purpose != other:
        with pytest.raises(IdentityError):
            KEY.public.verify(other, message, KEY.sign(purpose, message))


def test_purpose_and_message_cannot_run_into_each_other() -> None:
    with pytest.raises(IdentityError):
        KEY.public.verify("plan", b"x\0y", KEY.sign("planx", b"y"))
    for wrong in ("", "plan\0x"):
        with pytest.raises(ValueError, match="purpose"):
            KEY.sign(wrong, b"")


def test_the_signature_is_ed25519_over_the_framed_message() -> None:
    """Any other implementation of RFC 8032 can verify what we sign."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signature = SigningKey(private).sign("contract", b"content")
    private.public_key().verify(bytes.fromhex(signature), b"fedcad:contract\0content")


def test_another_key_is_refused() -> None:
    with pytest.raises(IdentityError, match="not of the key"):
        SigningKey.generate().public.verify("plan", b"", KEY.sign("plan", b""))


@pytest.mark.parametrize("signature", ["", "00", "zz" * 64, "0" * 127, "0" * 129, " " * 128, None, 5])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    with pytest.raises(IdentityError):
        KEY.public.verify("plan", b"", signature)


def test_a_signature_in_capitals_is_refused() -> None:
    signature = next(text for text in (KEY.sign("p", bytes([n])) for n in range(9)) if not text.isdigit())
    with pytest.raises(IdentityError):
        KEY.public.verify("p", b"\0", signature.upper())


def test_a_public_key_travels_as_hexadecimal() -> None:
    assert PublicKey.from_hex(KEY.public.hex) == KEY.public
    assert hash(PublicKey.from_hex(KEY.public.hex)) == hash(KEY.public)
    for wrong in ("", "00" * 31, "00" * 33, "GG" * 32, "AB" * 32, "ab" * 32 + "\n", None):
        with pytest.raises(IdentityError):
            PublicKey.from_hex(wrong)  # type: ignore[arg-type]


def test_fingerprint_by_hand() -> None:
    text = fingerprint_of(b"abc")
    assert text.startswith("ba78 16bf 8f01 cfea ")  # FIPS 180-2, appendix B.1
    assert text.replace(" ", "") == hashlib.sha256(b"abc").hexdigest()
    assert [len(group) for group in text.split(" ")] == [4] * 16
    assert KEY.public.fingerprint == fingerprint_of(KEY.public.raw)


def test_fingerprints_are_compared_as_people_write_them() -> None:
    text = fingerprint_of(b"abc")
    assert same_fingerprint(text, text.upper().replace(" ", ":"))
    assert same_fingerprint(text, f" {text.replace(' ', '')}\n")
    assert not same_fingerprint(text, fingerprint_of(b"abd"))


@pytest.mark.parametrize("part", ["", "ba78 16bf", "ba78" * 15 + "ba7g", "0" * 65])
def test_a_part_of_a_fingerprint_is_refused(part: str) -> None:
    with pytest.raises(IdentityError, match="64 hexadecimal digits"):
        same_fingerprint(fingerprint_of(b"abc"), part)


def test_a_key_is_saved_and_loaded(tmp_path: Path) -> None:
    KEY.save(tmp_path / "signing.key")
    assert SigningKey.load(tmp_path / "signing.key").public == KEY.public
    with pytest.raises(IdentityError, match="never overwritten"):
        SigningKey.generate().save(tmp_path / "signing.key")
    assert SigningKey.load(tmp_path / "signing.key").public == KEY.public


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "signing.key")
    (tmp_path / "signing.key").chmod(0o640)
    with pytest.raises(IdentityError, match="other accounts"):
        SigningKey.load(tmp_path / "signing.key")


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for number, content in enumerate((b"", b"hidden", pem, pem[:100])):
        path = tmp_path / f"{number}.key"
        write_secret(path, content)
        with pytest.raises(IdentityError) as caught:
            SigningKey.load(path)
        assert "hidden" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


def test_no_text_form_shows_the_key() -> None:
    private = KEY._key.private_bytes_raw()
    shown = f"{KEY!r} {KEY} {vars(KEY)}"
    assert private.hex() not in shown
    assert KEY.public.hex in repr(KEY)
