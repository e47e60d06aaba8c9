"""How a site joins a consortium: its request, and what the coordinator returns. Neither holds a secret.

The request carries the site's two public keys, is signed with both, and is known by the fingerprint of its
signing key. The enrolment carries what the site must know of the consortium, signed by the coordinator, and
is known by the fingerprint of the authority: the site's certificate in it names the coordinator's key.
Files are JSON in one exact form, so that a changed byte is a refused file.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from pydantic import Field, ValidationError

from fedcad.shared.canonical import canonical_json
from fedcad.shared.certificates import (
    LARGEST_PEM_CHARACTERS,
    CertificateFacts,
    authority_fingerprint,
    check_certificate,
    node_key_hash,
    read_authority,
    read_certificate,
)
from fedcad.shared.config.consortium import Address
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name
from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import PublicKey, SigningKey
from fedcad.shared.version import __version__

LARGEST_FILE_BYTES = 65_536
_REQUEST = "enrolment request"
_ENROLMENT = "enrolment"
_LARGEST_NODE_KEY = 300
_NODE_KEY = r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]+={0,2}$"

HexKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Pem = Annotated[str, Field(max_length=LARGEST_PEM_CHARACTERS)]
Time = Annotated[str, Field(max_length=40)]
NodeKey = Annotated[str, Field(pattern=_NODE_KEY, max_length=_LARGEST_NODE_KEY)]
Document = TypeVar("Document", bound=Frozen)


class EnrolmentRequest(Frozen):
    """What a site sends to the coordinator: its name and public keys."""

    kind: Literal["fedcad-enrolment-request"] = "fedcad-enrolment-request"
    """Kind of file."""
    format: Literal[1] = 1
    """Version of this kind of file."""
    site: Name
    """Name of the site."""
    node_key: NodeKey
    """Public key with which the site's node logs in: EC P-384, OpenSSH form."""
    signing_key: HexKey
    """Public key with which the site signs: Ed25519, hexadecimal."""
    made: Time
    """When the keys were made, ISO 8601."""
    fedcad: Annotated[str, Field(max_length=40)] = __version__
    """Version of FedCAD at the site."""
    node_signature: Annotated[str, Field(pattern=r"^[0-9a-f]{1,300}$")]
    """ECDSA over all of the above: proof that the site holds the node key."""
    signature: Signature
    """Ed25519 over all of the above: the site's signature."""

    @classmethod
    def make(
        cls, site: str, node_key: ec.EllipticCurvePrivateKey, signing_key: SigningKey, *, now: datetime
    ) -> Self:
        """Make and sign a request."""
        content = {
            "kind": "fedcad-enrolment-request",
            "format": 1,
            "site": site,
            "node_key": openssh_text(node_key.public_key()),
            "signing_key": signing_key.public.hex,
            "made": now.isoformat(timespec="seconds"),
            "fedcad": __version__,
        }
        message = f"fedcad:{_REQUEST}".encode() + b"\0" + canonical_json(content)
        content["node_signature"] = node_key.sign(message, ec.ECDSA(hashes.SHA256())).hex()
        return cls.model_validate(
            {**content, "signature": signing_key.sign(_REQUEST, canonical_json(content))}
        )

    @property
    def public_key(self) -> PublicKey:
        """The site's signing key."""
        return PublicKey.from_hex(self.signing_key)

    @property
    def fingerprint(self) -> str:
        """What the site reads out by telephone."""
        return self.public_key.fingerprint

    @property
    def node_public_key(self) -> ec.EllipticCurvePublicKey:
        """The node's public key.

        Raises:
            IdentityError: The text is no such key.
        """
        return node_key_from(self.node_key)

    def verify(self) -> None:
        """Check that whoever made the request holds both private keys, and that nothing was changed.

        Raises:
            IdentityError: Not so.
        """
        content = self.model_dump(mode="json", exclude={"signature"})
        self.public_key.verify(_REQUEST, canonical_json(content), self.signature)
        del content["node_signature"]
        message = f"fedcad:{_REQUEST}".encode() + b"\0" + canonical_json(content)
        try:
            signature = bytes.fromhex(self.node_signature)
            self.node_public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError) as error:
            raise IdentityError(
                "the request does not prove that the site holds its node key; ask the site for a new one"
            ) from error


class Enrolment(Frozen):
    """What the coordinator returns to a site."""

    kind: Literal["fedcad-enrolment"] = "fedcad-enrolment"
    """Kind of file."""
    format: Literal[1] = 1
    """Version of this kind of file."""
    consortium: Name
    """Name of the consortium."""
    site: Name
    """Name of the site."""
    address: Address
    """Host and port of the coordinator, as the site reaches it."""
    ca_pem: Pem
    """Certificate of the consortium's authority."""
    coordinator: HexKey
    """Public key with which the coordinator signs: Ed25519, hexadecimal."""
    certificate: Pem
    """The site's certificate, signed by the authority."""
    issued: Time
    """When it was made, ISO 8601."""
    expires: Time
    """When the certificate ends, ISO 8601."""
    signature: Signature
    """Ed25519 of the coordinator over all of the above."""

    @classmethod
    def make(cls, content: dict[str, Any], key: SigningKey) -> Self:
        """Sign an enrolment.

        Args:
            content: Every field but ``kind``, ``format``, ``coordinator`` and ``signature``.
            key: The coordinator's signing key.
        """
        full = {"kind": "fedcad-enrolment", "format": 1, **content, "coordinator": key.public.hex}
        return cls.model_validate({**full, "signature": key.sign(_ENROLMENT, canonical_json(full))})

    @property
    def coordinator_key(self) -> PublicKey:
        """The coordinator's signing key."""
        return PublicKey.from_hex(self.coordinator)

    @property
    def authority_fingerprint(self) -> str:
        """What the coordinator reads out by telephone."""
        return authority_fingerprint(read_authority(self.ca_pem))

    @property
    def host(self) -> str:
        """Host of the coordinator."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """Port of the coordinator."""
        return int(self.address.rpartition(":")[2])

    def facts(self) -> CertificateFacts:
        """Check signatures and the ties between the parts; return what the certificate says.

        Dates are not checked: an enrolment that has ended still says whose it was.

        Raises:
            IdentityError: A signature is wrong, or the parts do not belong together.
        """
        content = self.model_dump(mode="json", exclude={"signature"})
        self.coordinator_key.verify(_ENROLMENT, canonical_json(content), self.signature)
        facts = read_certificate(self.certificate, self.ca_pem)
        if facts.member.coordinator != self.coordinator_key:
            raise IdentityError(
                "the enrolment is signed by another key than the one its authority names; "
                "do not use it, and tell the coordinator"
            )
        if facts.member.site != self.site:
            raise IdentityError(
                f"the enrolment is for {self.site!r}, but its certificate for {facts.member.site[:64]!r}; "
                "ask the coordinator for it again"
            )
        return facts

    def verify(self, *, now: datetime) -> CertificateFacts:
        """Check everything that can be checked without the site's keys, dates included.

        Raises:
            IdentityError: As for :meth:`facts`, or a certificate is not valid now.
        """
        facts = self.facts()
        check_certificate(self.certificate, self.ca_pem, now=now)
        return facts


def node_key_from(text: str) -> ec.EllipticCurvePublicKey:
    """Read a node's public key in OpenSSH form.

    Raises:
        IdentityError: It is no EC P-384 key in exactly this form.
    """
    try:
        key = load_ssh_public_key(text.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("the node key is damaged; ask the site for a new request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or openssh_text(key) != text:
        raise IdentityError(
            "the node key is not an EC P-384 key in OpenSSH form; ask the site for a new request"
        )
    return key


def openssh_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return a node's public key in OpenSSH form, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def member_key_hash(request: EnrolmentRequest) -> str:
    """Return the hash of a request's node key, as a certificate holds it."""
    return node_key_hash(request.node_public_key)


def file_text(document: Frozen) -> bytes:
    """Return a document as its file: JSON in one exact form."""
    plain = document.model_dump(mode="json")
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def read_file(path: Path, model: type[Document], what: str) -> Document:
    """Read a request or an enrolment from a file, which may be hostile. Signatures are not checked here.

    Line ends and white space at the end may have been changed by mail programs; nothing else may.

    Raises:
        IdentityError: It cannot be read, is too large, or is not exactly what FedCAD writes.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(
            f"{path}: cannot be read ({error.strerror}); give the file with {what}"
        ) from error
    if len(content) > LARGEST_FILE_BYTES:
        raise IdentityError(f"{path}: larger than {LARGEST_FILE_BYTES} bytes, so not {what}")
    return parse(content, model, f"{path}: expected {what}")


def parse(content: bytes, model: type[Document], expected: str) -> Document:
    """Read a document from bytes, as :func:`read_file`.

    Raises:
        IdentityError: The bytes are not exactly what FedCAD writes.
    """
    try:
        document = model.model_validate_json(content)
    except ValidationError as error:
        raise IdentityError(f"{expected}; {_what_is_wrong(error)}") from error
    if content.replace(b"\r\n", b"\n").rstrip() != file_text(document).rstrip():
        raise IdentityError(f"{expected} as FedCAD wrote it; this one was changed. Ask for it again")
    return document


def _what_is_wrong(error: ValidationError) -> str:
    """Say what a file is instead, in words for whoever picked the wrong one."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    if first["type"] == "json_invalid":
        return "this is another kind of file, or damaged"
    if place == "kind":
        known = {"fedcad-enrolment-request": "a request", "fedcad-enrolment": "an enrolment"}
        return f"this is {known.get(str(first['input'])[:40], 'another kind of file')}"
    return f"{place[:100] or 'the file'}: {first['msg'][:200]}. Ask for it again"
