"""The consortium's certificates (X.509, RFC 5280): its authority, the coordinator's server, the sites.

One fingerprint, that of the authority, is compared by telephone; all else hangs on it. A site's certificate
is signed by the authority and ties together the site's name, its signing key (the certificate's subject
key), its node key (by hash) and the coordinator's signing key (by value), so that a site that knows the
authority knows whose plans to trust.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import PublicKey, fingerprint_of

BACKDATED = timedelta(hours=1)
"""Certificates begin this long before they are made, for sites whose clock is slow."""
LARGEST_PEM_CHARACTERS = 8192
_NODE = "fedcad:node:"
_COORDINATOR = "fedcad:coordinator:"
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parser raises over bytes that are no certificate as we make them."""


@dataclass(frozen=True)
class Authority:
    """The consortium's certificate authority.

    Attributes:
        certificate: Its certificate.
        key: Its private key, EC P-256; for signing only.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return pem_of(self.certificate)


@dataclass(frozen=True)
class Member:
    """What a site's certificate says about it.

    Attributes:
        site: Name of the site.
        signing_key: The site's signing key.
        node_key_hash: Hash of the public key with which its node logs in, see :func:`node_key_hash`.
        coordinator: The coordinator's signing key.
    """

    site: str
    signing_key: PublicKey
    node_key_hash: str
    coordinator: PublicKey


@dataclass(frozen=True)
class CertificateFacts:
    """A verified certificate of a site.

    Attributes:
        member: Whose it is.
        serial: Serial number, hexadecimal.
        issued: Begin of its validity.
        expires: End of its validity.
    """

    member: Member
    serial: str
    issued: datetime
    expires: datetime


def make_authority(name: str, *, now: datetime, days: int) -> Authority:
    """Make a consortium's authority: a new key and a certificate signed with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{name} FedCAD authority"[:64], name)
    builder = _builder(subject, subject, now=now, days=days).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def make_server_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, names: Sequence[str], *, now: datetime, days: int
) -> x509.Certificate:
    """Make the certificate of the coordinator's listener.

    Args:
        authority: Who signs.
        key: The listener's public key.
        names: Host names and IP addresses under which sites reach it, at least one.
        now: Time of signing.
        days: Validity; never longer than the authority's.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = _issued(authority, subject, now=now, days=days).public_key(key)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def make_site_certificate(
    authority: Authority, member: Member, *, consortium: str, now: datetime, days: int
) -> x509.Certificate:
    """Make a site's certificate; its validity is never longer than the authority's."""
    key = Ed25519PublicKey.from_public_bytes(member.signing_key.raw)
    builder = _issued(authority, _subject(member.site, consortium), now=now, days=days).public_key(key)
    identifiers = [f"{_NODE}{member.node_key_hash}", f"{_COORDINATOR}{member.coordinator.hex}"]
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(each) for each in identifiers]),
        critical=False,
    )
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def check_certificate(pem: str, authority_pem: str, *, now: datetime) -> CertificateFacts:
    """Check a site's certificate: who signed it, and that it is valid now.

    Args:
        pem: The certificate, possibly hostile.
        authority_pem: The authority's, whose fingerprint the caller has compared.
        now: Time of the check, with time zone.

    Raises:
        IdentityError: It is damaged, of another authority, or not valid at this time.
    """
    facts = read_certificate(pem, authority_pem)
    check_dates(read_authority(authority_pem), "the authority's certificate", now=now)
    check_dates(_parse(pem, "the site's certificate"), "the site's certificate", now=now)
    return facts


def read_certificate(pem: str, authority_pem: str) -> CertificateFacts:
    """Check who signed a site's certificate, and return what it says, whether it is valid now or not.

    Raises:
        IdentityError: It is damaged, or of another authority.
    """
    authority = read_authority(authority_pem)
    certificate = _parse(pem, "the site's certificate")
    check_issuer(certificate, authority, "the site's certificate")
    try:
        member = _member_of(certificate)
    except (*_UNREADABLE, IndexError) as error:
        raise IdentityError(
            "the site's certificate is not one that FedCAD makes; enrol the site again"
        ) from error
    return CertificateFacts(
        member,
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def read_authority(pem: str) -> x509.Certificate:
    """Read an authority's certificate, and check that it is one and signed itself.

    Raises:
        IdentityError: It is damaged or no authority's.
    """
    certificate = _parse(pem, "the authority's certificate")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE as error:
        raise IdentityError("the authority's certificate lacks its constraints; ask for it again") from error
    if not is_authority:
        raise IdentityError("expected an authority's certificate, got one that may not sign others")
    check_issuer(certificate, certificate, "the authority's certificate")
    return certificate


def check_issuer(certificate: x509.Certificate, authority: x509.Certificate, what: str) -> None:
    """Check that an authority signed a certificate.

    Raises:
        IdentityError: It did not, or the certificate was changed.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise IdentityError(
            f"{what} was changed, or is not of the authority with fingerprint "
            f"{authority_fingerprint(authority)[:19]} …; ask the coordinator for the file again"
        ) from error


def check_dates(certificate: x509.Certificate, what: str, *, now: datetime) -> None:
    """Check that a certificate is valid at a time.

    Raises:
        IdentityError: It is not yet or no longer valid; the message names both times.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise IdentityError(
            f"{what} is valid from {_time(begin)}, but it is {_time(now)} here; set this machine's clock"
        )
    if now >= end:
        raise IdentityError(
            f"{what} ended at {_time(end)}, and it is {_time(now)} here; ask the coordinator to renew it, "
            "or set this machine's clock"
        )


def authority_fingerprint(certificate: x509.Certificate) -> str:
    """Return the fingerprint that is read out by telephone: SHA-256 of the certificate's DER form."""
    return fingerprint_of(certificate.public_bytes(Encoding.DER))


def node_key_hash(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a node's public key (DER, SubjectPublicKeyInfo) as 64 hexadecimal digits."""
    return fingerprint_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).replace(" ", "")


def pem_of(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def load_certificate(pem: str, what: str) -> x509.Certificate:
    """Read one certificate in exactly the form that FedCAD writes.

    Raises:
        IdentityError: It is too large, damaged, or written otherwise.
    """
    return _parse(pem, what)


def _parse(pem: str, what: str) -> x509.Certificate:
    if len(pem) > LARGEST_PEM_CHARACTERS:
        raise IdentityError(
            f"{what} is longer than {LARGEST_PEM_CHARACTERS} characters; expected one certificate"
        )
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (UnicodeEncodeError, *_UNREADABLE) as error:
        raise IdentityError(
            f"{what} is damaged: not a certificate in PEM form; ask for the file again"
        ) from error
    if pem_of(certificate) != pem:
        raise IdentityError(f"{what} was rewritten on the way; ask for the file again")
    return certificate


def _member_of(certificate: x509.Certificate) -> Member:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a site signs with Ed25519")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Member(
        site=str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value),
        signing_key=PublicKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw)),
        node_key_hash=_after(_NODE, uris),
        coordinator=PublicKey.from_hex(_after(_COORDINATOR, uris)),
    )


def _after(prefix: str, uris: Sequence[str]) -> str:
    return next(uri.removeprefix(prefix) for uri in [*uris, prefix] if uri.startswith(prefix))


def _issued(authority: Authority, subject: x509.Name, *, now: datetime, days: int) -> x509.CertificateBuilder:
    issuer = authority.certificate
    builder = _builder(subject, issuer.subject, now=now, days=days, latest=issuer.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, *, now: datetime, days: int, latest: datetime | None = None
) -> x509.CertificateBuilder:
    second = now.astimezone(UTC).replace(microsecond=0)
    end = second + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.not_valid_before(second - BACKDATED).not_valid_after(min(end, latest or end))
    return builder.serial_number(x509.random_serial_number())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
