"""Enrolling, renewing and revoking sites. Only public keys ever reach the coordinator."""

from datetime import UTC, datetime

from fedcad.server.consortium import Consortium
from fedcad.server.site_record import SiteRecord, read_record, write_record
from fedcad.shared.certificates import BACKDATED, Member, make_site_certificate, pem_of
from fedcad.shared.enrolment import Enrolment, EnrolmentRequest, member_key_hash
from fedcad.shared.errors import IdentityError


def enrol(
    consortium: Consortium,
    request: EnrolmentRequest,
    *,
    replace: bool = False,
    now: datetime | None = None,
) -> Enrolment:
    """Take a site into the consortium; the caller has compared the request's fingerprint.

    The same request again returns the same enrolment. Other sites are not touched.

    Args:
        consortium: The consortium.
        request: What the site sent.
        replace: Whether a site of this name gets new keys, or a revoked one is taken in again.
        now: Time from which the certificate counts.

    Raises:
        IdentityError: The request does not verify; its name or one of its keys is taken; the keys were
            replaced before; or the site was revoked.
    """
    moment = now or datetime.now(UTC)
    request.verify()
    same = find_same(consortium, request, replace=replace)
    if same is not None:
        return same.enrolment
    found = read_record(consortium.sites_folder, request.site)
    earlier = () if found is None else _earlier_keys(found, request)
    record = SiteRecord(
        request=request,
        enrolment=make_enrolment(consortium, request, now=moment),
        enrolled=_text(moment),
        earlier_keys=earlier,
    )
    write_record(consortium.sites_folder, record)
    return record.enrolment


def find_same(
    consortium: Consortium, request: EnrolmentRequest, *, replace: bool = False
) -> SiteRecord | None:
    """Return the record of a site that this very request enrolled before, or None where it would be new.

    Raises:
        IdentityError: The request's name or one of its keys is taken, or it was revoked or replaced.
    """
    _check_unused(consortium, request)
    found = read_record(consortium.sites_folder, request.site)
    if found is None:
        return None
    if replace and (found.revoked or found.request != request):
        _earlier_keys(found, request)
        return None
    _check_same(found, request)
    return found


def renew(consortium: Consortium, site: str, *, now: datetime | None = None) -> Enrolment:
    """Make a new certificate and enrolment for a site's present keys; other sites are not touched.

    Raises:
        IdentityError: There is no such site, or it was revoked.
    """
    record = existing(consortium, site)
    if record.revoked:
        raise IdentityError(
            f"site {site!r} was revoked at {record.revoked}; to take it in again, let it make new keys "
            "(fedcad client request --new-keys) and enrol it with --replace"
        )
    enrolment = make_enrolment(consortium, record.request, now=now or datetime.now(UTC))
    write_record(consortium.sites_folder, record.model_copy(update={"enrolment": enrolment}))
    return enrolment


def revoke(consortium: Consortium, site: str, reason: str, *, now: datetime | None = None) -> SiteRecord:
    """Exclude a site from now on; a running coordinator notices by itself.

    Raises:
        IdentityError: There is no such site, or it was revoked before.
    """
    record = existing(consortium, site)
    if record.revoked:
        raise IdentityError(f"site {site!r} was revoked already, at {record.revoked}")
    changed = SiteRecord.model_validate(
        {**record.model_dump(), "revoked": _text(now or datetime.now(UTC)), "reason": reason}
    )
    write_record(consortium.sites_folder, changed)
    return changed


def existing(consortium: Consortium, site: str) -> SiteRecord:
    """Return the record of a site that was enrolled.

    Raises:
        IdentityError: There is none; the message names those that there are.
    """
    names = list(consortium.sites())
    record = read_record(consortium.sites_folder, site) if site in names else None
    if record is None:
        known = ", ".join(names) or "none yet"
        raise IdentityError(f"no site {site[:64]!r} is enrolled; the sites are: {known}")
    return record


def make_enrolment(consortium: Consortium, request: EnrolmentRequest, *, now: datetime) -> Enrolment:
    """Sign a certificate and an enrolment for a request; nothing is written."""
    key = consortium.signing_key()
    authority = consortium.authority()
    name = consortium.config.name
    certificate = make_site_certificate(
        authority,
        Member(request.site, request.public_key, member_key_hash(request), key.public),
        consortium=name,
        now=now,
        days=consortium.config.certificate_days,
    )
    content = {
        "consortium": name,
        "site": request.site,
        "address": consortium.config.address,
        "ca_pem": authority.pem,
        "certificate": pem_of(certificate),
        "issued": _text(certificate.not_valid_before_utc + BACKDATED),
        "expires": _text(certificate.not_valid_after_utc),
    }
    return Enrolment.make(content, key)


def _check_unused(consortium: Consortium, request: EnrolmentRequest) -> None:
    """Refuse keys that another site has: two sites would be one."""
    for name, site in consortium.sites().items():
        if name != request.site and (
            site.signing_key == request.public_key or site.node_key_openssh == request.node_key
        ):
            raise IdentityError(
                f"the request of {request.site!r} carries a key of site {name!r}; "
                "each site makes its own keys"
            )


def _check_same(found: SiteRecord, request: EnrolmentRequest) -> None:
    site = request.site
    if found.request != request:
        raise IdentityError(
            f"a site {site!r} is enrolled with other keys (fingerprint {found.request.fingerprint}); "
            "if this is the same hospital and it made new keys, use --replace; else it needs another name"
        )
    if found.revoked:
        raise IdentityError(
            f"site {site!r} was revoked at {found.revoked}; to take it in again, let it make new keys "
            "(fedcad client request --new-keys) and use --replace"
        )


def _earlier_keys(found: SiteRecord, request: EnrolmentRequest) -> tuple[str, ...]:
    """Return the keys that the site will have had; refuse one of them as its new one."""
    earlier = found.earlier_keys
    if found.request.signing_key != request.signing_key:
        earlier = (*earlier, found.request.signing_key)
    elif found.revoked:
        raise IdentityError(
            f"site {request.site!r} was revoked with these keys; let it make new ones "
            "(fedcad client request --new-keys)"
        )
    if request.signing_key in earlier:
        raise IdentityError(
            f"the request carries keys that site {request.site!r} had before; let it make new ones "
            "(fedcad client request --new-keys)"
        )
    return earlier


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
