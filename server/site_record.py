"""What the coordinator keeps of each site: ``sites/NAME.json``, one file a site, whole or absent."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.enrolment import Enrolment, EnrolmentRequest, HexKey, Time, file_text, read_file
from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import PublicKey

WARN_BEFORE = timedelta(days=30)
"""How long before its end a certificate is reported as about to expire."""
Status = Literal["enrolled", "revoked", "expired"]


class SiteRecord(Frozen):
    """A site in the coordinator's books."""

    format: Literal[1] = 1
    """Version of this kind of file."""
    request: EnrolmentRequest
    """What the site asked for."""
    enrolment: Enrolment
    """What it was given last."""
    enrolled: Time
    """When it was first enrolled with these keys, ISO 8601."""
    revoked: Time | None = None
    """When it was revoked, ISO 8601."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """Why it was revoked."""
    earlier_keys: Annotated[tuple[HexKey, ...], Field(max_length=100, strict=False)] = ()
    """Signing keys that the site had before; they are never taken again."""


@dataclass(frozen=True)
class EnrolledSite:
    """A site as others see it.

    Attributes:
        name: Its name.
        node_key_openssh: Public key with which its node logs in, OpenSSH form.
        signing_key: Public key with which it signs.
        certificate_pem: Its certificate.
        status: Whether it may take part.
        reason: Why it was revoked, else empty.
        enrolled: When it was enrolled with its present keys.
        issued: Begin of its certificate.
        expires: End of its certificate.
    """

    name: str
    node_key_openssh: str
    signing_key: PublicKey
    certificate_pem: str
    status: Status
    reason: str
    enrolled: datetime
    issued: datetime
    expires: datetime

    @property
    def objection(self) -> str:
        """Why it may not take part, empty where it may."""
        if self.status == "revoked":
            return f"its enrolment was revoked{f': {self.reason}' if self.reason else ''}"
        if self.status == "expired":
            return f"its certificate ended at {self.expires:%Y-%m-%d %H:%M} UTC; renew it"
        return ""

    def days_left(self, now: datetime) -> int:
        """Return the whole days until its certificate ends; negative once it has."""
        return (self.expires - now).days


def write_record(folder: Path, record: SiteRecord) -> None:
    """Write a site's record into the folder ``sites``."""
    write_bytes(folder / f"{record.request.site}.json", file_text(record))


def read_record(folder: Path, site: str) -> SiteRecord | None:
    """Read a site's record, or return None where there is none.

    Raises:
        IdentityError: The record is damaged, or its parts are not this site's.
    """
    path = folder / f"{site}.json"
    if not path.is_file():
        return None
    record = read_file(path, SiteRecord, "a site's record; restore it from the backup")
    if record.request.site != site or record.enrolment.site != site:
        raise IdentityError(f"{path}: this is the record of another site; restore it from the backup")
    return record


def enrolled_site(record: SiteRecord, coordinator: PublicKey, *, now: datetime) -> EnrolledSite:
    """Return what a record says at a time.

    Args:
        record: The record.
        coordinator: The coordinator's public key, who must have signed it.
        now: Time of the question.

    Raises:
        IdentityError: The record's parts do not belong together, or another coordinator signed them.
    """
    facts = record.enrolment.facts()
    request = record.request
    if facts.member.coordinator != coordinator or facts.member.signing_key != request.public_key:
        raise IdentityError(
            f"the record of site {request.site!r} does not fit this consortium's keys; "
            "restore it from the backup"
        )
    expired: Status = "expired" if now >= facts.expires else "enrolled"
    return EnrolledSite(
        name=request.site,
        node_key_openssh=request.node_key,
        signing_key=request.public_key,
        certificate_pem=record.enrolment.certificate,
        status="revoked" if record.revoked else expired,
        reason=record.reason,
        enrolled=datetime.fromisoformat(record.enrolled),
        issued=facts.issued,
        expires=facts.expires,
    )
