"""A site's keys and request, and installing what the coordinator returned. Private keys never leave."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedcad.client.hospital import Hospital
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.certificates import CertificateFacts
from fedcad.shared.enrolment import Enrolment, EnrolmentRequest, file_text, openssh_text, read_file
from fedcad.shared.errors import IdentityError
from fedcad.shared.secret_files import make_private_folder, write_secret
from fedcad.shared.signing import SigningKey, same_fingerprint


def request(hospital: Hospital, *, new_keys: bool = False, now: datetime | None = None) -> EnrolmentRequest:
    """Return the site's request; make its keys the first time, and never again unless asked to.

    Args:
        hospital: The site.
        new_keys: Put the present keys aside (``keys/old-TIME/``) and make new ones.
        now: Time of making.

    Guarantees:
        Without ``new_keys``, existing keys are neither replaced nor changed, and the same keys give the same
        request.

    Raises:
        IdentityError: Only one of the two keys is there, or one cannot be used.
    """
    moment = now or datetime.now(UTC)
    make_private_folder(hospital.keys)
    if new_keys:
        put_keys_aside(hospital, moment)
    _make_keys(hospital)
    found = _existing(hospital)
    if found is not None:
        return found
    made = EnrolmentRequest.make(hospital.site.name, hospital.node_key(), hospital.signing_key(), now=moment)
    write_bytes(hospital.request_file, file_text(made))
    hospital.request_file.chmod(0o644)
    return made


def join(
    hospital: Hospital, enrolment_file: Path, expected_fingerprint: str, *, now: datetime | None = None
) -> CertificateFacts:
    """Install what the coordinator returned, after checking all of it.

    Args:
        hospital: The site.
        enrolment_file: The coordinator's file, possibly hostile.
        expected_fingerprint: The authority's fingerprint as the coordinator read it out.
        now: Time of the check.

    Returns:
        What the site's certificate says.

    Guarantees:
        A file that does not verify leaves the site as it was.

    Raises:
        IdentityError: A signature, fingerprint, name, key or date is not what it must be.
    """
    enrolment, facts = examine(hospital, enrolment_file, now=now)
    join_checked(hospital, enrolment, expected_fingerprint)
    return facts


def join_checked(hospital: Hospital, enrolment: Enrolment, expected_fingerprint: str) -> None:
    """Install an enrolment that :func:`examine` returned, if its authority has the expected fingerprint.

    Raises:
        IdentityError: It has another.
    """
    if not same_fingerprint(enrolment.authority_fingerprint, expected_fingerprint):
        raise IdentityError(
            f"the enrolment's authority has the fingerprint\n  {enrolment.authority_fingerprint}\n"
            f"but the coordinator read out\n  {expected_fingerprint.strip()[:100]}\n"
            "Nothing was installed: somebody may have exchanged the file, or a digit was misheard. "
            "Call the coordinator"
        )
    install(hospital, enrolment)


def is_known_authority(hospital: Hospital, enrolment: Enrolment) -> bool:
    """Whether the authority is the one that this site has compared and installed before."""
    try:
        return hospital.ca_certificate.read_text(encoding="ascii") == enrolment.ca_pem
    except (OSError, UnicodeDecodeError):
        return False


def examine(
    hospital: Hospital, enrolment_file: Path, *, now: datetime | None = None
) -> tuple[Enrolment, CertificateFacts]:
    """Check all of an enrolment but the authority's fingerprint, which only a person can compare.

    Raises:
        IdentityError: A signature, name, key or date is not what it must be.
    """
    enrolment = read_file(enrolment_file, Enrolment, "the enrolment file that the coordinator returned")
    return enrolment, hospital.check_enrolment(enrolment, now=now)


def install(hospital: Hospital, enrolment: Enrolment) -> None:
    """Write a checked enrolment: the authority's certificate, then the enrolment that says all is there."""
    for path, content in (
        (hospital.ca_certificate, enrolment.ca_pem.encode("ascii")),
        (hospital.enrolment_file, file_text(enrolment)),
    ):
        write_bytes(path, content)
        path.chmod(0o644)


def put_keys_aside(hospital: Hospital, now: datetime) -> Path | None:
    """Move present keys, request and enrolment into a folder of their own; return it, or None without any."""
    files = [
        path
        for path in (
            hospital.node_key_file,
            hospital.signing_key_file,
            hospital.request_file,
            hospital.enrolment_file,
        )
        if path.exists()
    ]
    if not files:
        return None
    aside = hospital.keys / f"old-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    if aside.exists():
        raise IdentityError(f"{aside} exists already; wait a second and try again")
    make_private_folder(aside)
    for path in files:
        path.rename(aside / path.name)
    return aside


def _make_keys(hospital: Hospital) -> None:
    """Make both keys where neither is there."""
    present = [path.exists() for path in (hospital.node_key_file, hospital.signing_key_file)]
    if all(present):
        return
    if (
        hospital.signing_key_file.exists()
        or hospital.request_file.exists()
        or hospital.enrolment_file.exists()
    ):
        raise IdentityError(
            f"{hospital.keys}: node.key or signing.key is missing, although a request was made with both; "
            "restore it, or make new keys: fedcad client request --new-keys"
        )
    # Left by an interruption before the second key was written; no request was ever made with it.
    hospital.node_key_file.unlink(missing_ok=True)
    node_key = ec.generate_private_key(ec.SECP384R1())
    private = node_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret(hospital.node_key_file, private)
    SigningKey.generate().save(hospital.signing_key_file)


def _existing(hospital: Hospital) -> EnrolmentRequest | None:
    """Return the request made before with the present keys and name, if it is still there and whole."""
    if not hospital.request_file.exists():
        return None
    try:
        found = read_file(hospital.request_file, EnrolmentRequest, "the request made before")
        found.verify()
    except IdentityError:
        return None
    same_keys = found.node_key == openssh_text(hospital.node_key().public_key())
    same_keys = same_keys and found.public_key == hospital.signing_key().public
    return found if same_keys and found.site == hospital.site.name else None
