"""Ed25519 signatures, each made for one purpose.

Why: a signature under a contract must never pass for one under a plan. What is signed is therefore always
``b"fedcad:" + purpose + b"\\0" + message``; no purpose contains a zero byte, so that the two cannot run into
each other.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fedcad.shared.errors import IdentityError
from fedcad.shared.secret_files import read_secret, write_secret

_PUBLIC_HEX = re.compile(r"[0-9a-f]{64}")
_SIGNATURE_HEX = re.compile(r"[0-9a-f]{128}")
_GROUP = 4


@dataclass(frozen=True)
class PublicKey:
    """A public Ed25519 key; equal keys are equal values.

    Attributes:
        raw: 32 bytes (RFC 8032, section 5.1.5).
    """

    raw: bytes

    @classmethod
    def from_hex(cls, text: str) -> "PublicKey":
        """Read a key from 64 lower-case hexadecimal digits.

        Raises:
            IdentityError: The text is not that.
        """
        if not isinstance(text, str) or not _PUBLIC_HEX.fullmatch(text):
            raise IdentityError("a public key is 64 lower-case hexadecimal digits; got something else")
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        """The key as 64 hexadecimal digits."""
        return self.raw.hex()

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint, for reading out."""
        return fingerprint_of(self.raw)

    def verify(self, purpose: str, message: bytes, signature: str) -> None:
        """Check a signature.

        Args:
            purpose: What it must have been made for.
            message: What must have been signed.
            signature: 128 lower-case hexadecimal digits, possibly hostile.

        Raises:
            IdentityError: This key did not sign this message for this purpose.
        """
        refusal = IdentityError(
            f"the signature ({purpose.partition(' ')[0]}) is not of the key with fingerprint "
            f"{self.fingerprint[:19]} …, or what it signs was changed on the way; ask for it again"
        )
        if not isinstance(signature, str) or not _SIGNATURE_HEX.fullmatch(signature):
            raise refusal
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(bytes.fromhex(signature), _framed(purpose, message))
        except (InvalidSignature, ValueError) as error:
            raise refusal from error


class SigningKey:
    """A private Ed25519 key. Neither its text form nor any message shows it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Hold a key."""
        self._key = key

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a key from the operating system's random numbers."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key from a file that only its owner can read.

        Raises:
            IdentityError: The file is absent, readable by others, or holds no Ed25519 key.
        """
        content = read_secret(path, "the signing key")
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{path}: no private key in PEM form; restore it from the backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path}: expected an Ed25519 key, got another kind")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key as PKCS #8 PEM with mode 0600.

        Raises:
            IdentityError: There is a file of this name already.
        """
        write_secret(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def public(self) -> PublicKey:
        """The public key that belongs to it."""
        return PublicKey(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, purpose: str, message: bytes) -> str:
        """Sign a message for one purpose; return 128 hexadecimal digits.

        Raises:
            ValueError: The purpose is empty or contains a zero character.
        """
        return self._key.sign(_framed(purpose, message)).hex()

    def __repr__(self) -> str:
        """Show the public part only."""
        return f"SigningKey(public={self.public.hex})"


def fingerprint_of(content: bytes) -> str:
    """Return the SHA-256 of public bytes as 16 groups of four hexadecimal digits, for reading out."""
    digits = hashlib.sha256(content).hexdigest()
    return " ".join(digits[start : start + _GROUP] for start in range(0, len(digits), _GROUP))


def same_fingerprint(one: str, other: str) -> bool:
    """Tell whether two written fingerprints are the same; spaces, colons and case do not matter.

    Raises:
        IdentityError: One of them is not 64 hexadecimal digits: a part of a fingerprint proves nothing.
    """
    return _digits(one) == _digits(other)


def _digits(fingerprint: str) -> str:
    digits = re.sub(r"[\s:]", "", fingerprint).lower()
    if not _PUBLIC_HEX.fullmatch(digits):
        raise IdentityError(
            f"a fingerprint has 64 hexadecimal digits, in 16 groups of four; got {len(digits)} characters. "
            "Give all of it"
        )
    return digits


def _framed(purpose: str, message: bytes) -> bytes:
    if not purpose or "\0" in purpose:
        raise ValueError(f"the purpose of a signature is a text without zero characters, got {purpose!r}")
    return b"fedcad:" + purpose.encode() + b"\0" + message
