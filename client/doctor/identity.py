"""Who this hospital is to the consortium: its certificate, and the keys that must belong to it.

Why not asked over the network: only a node's own log-in tells whether the coordinator still knows its key,
and a log-in beside a running node would disturb it. So the running node is asked what it was told.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from fedcad.client.doctor.check import Check, Finding, NotCheckable, failed, ok, warning
from fedcad.client.hospital import Hospital
from fedcad.client.supernode import read_contact
from fedcad.shared.certificates import check_certificate, node_key_hash
from fedcad.shared.enrolment import Enrolment
from fedcad.shared.errors import FedCADError, IdentityError

GROUP = "Identity"
RENEW_DAYS = 30
"""Days before its end from which a certificate is asked to be renewed."""
CONTACT_S = 120.0
"""Age from which what the node last heard says nothing about now."""
_OTHERS = 0o077
_INSTALL = "Install the file that it returns: fedcad client join."


class Identity:
    """The checks of one hospital's enrolment and keys."""

    def __init__(
        self,
        enrolled: Callable[[], Enrolment],
        hospital: Callable[[], Hospital],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take how the enrolment and the hospital's folder are opened, both may raise, and a clock."""
        self._enrolled = enrolled
        self._hospital = hospital
        self._now = now

    def checks(self) -> tuple[Check, ...]:
        """Return the checks."""
        return (
            Check(GROUP, "enrolment", lambda _: self.enrolment()),
            Check(GROUP, "certificate", lambda _: self.certificate()),
            Check(GROUP, "keys fit", lambda _: self.keys()),
            Check(GROUP, "accepted", lambda _: self.accepted()),
        )

    def enrolment(self) -> Finding:
        """Whether the hospital is enrolled, under the name of its site file."""
        enrolled = self._enrolled()
        site = enrolled.facts().member.site
        found = f"enrolled at {enrolled.consortium} as {site}; the coordinator is {enrolled.address}"
        name = self._hospital().site.name
        if site != name:
            return failed(
                f"{found}, but site.yaml says name: {name}",
                f"Write name: {site} into site.yaml.",
            )
        return ok(found)

    def certificate(self) -> Finding:
        """Whether the site's certificate is valid, and for how long."""
        enrolled = self._enrolment()
        try:
            facts = check_certificate(enrolled.certificate, enrolled.ca_pem, now=self._now())
        except IdentityError as error:
            return failed(str(error), f"Ask the coordinator to renew it. {_INSTALL}")
        days = (facts.expires - self._now()).days
        found = f"valid until {facts.expires:%Y-%m-%d}"
        if days < RENEW_DAYS:
            return warning(f"{found}: {days} days", f"Ask the coordinator to renew it in time. {_INSTALL}")
        return ok(found)

    def keys(self) -> Finding:
        """Whether both private keys are those that the certificate speaks of."""
        member, hospital = self._enrolment().facts().member, self._hospital()
        files = (hospital.signing_key_file, hospital.node_key_file)
        if any(path.exists() and path.stat().st_mode & _OTHERS for path in files):
            raise NotCheckable("see 'keys' above")
        wrong = []
        if hospital.signing_key().public != member.signing_key:
            wrong.append(hospital.signing_key_file.name)
        if node_key_hash(hospital.node_key().public_key()) != member.node_key_hash:
            wrong.append(hospital.node_key_file.name)
        if wrong:
            return failed(
                f"{' and '.join(wrong)} is not of this enrolment",
                "Put back keys/ from the backup, as it was when the enrolment was requested, or enrol anew: "
                "fedcad client request --new-keys.",
            )
        return ok("both keys belong to the certificate")

    def accepted(self) -> Finding:
        """Whether the coordinator lets the node in, as the running node last heard."""
        self._enrolment()
        contact = read_contact(self._hospital().run)
        if time.time() - float(contact.get("last_contact", 0.0)) > CONTACT_S:
            raise NotCheckable("the node is not running; start it, and call the doctor again")
        if contact.get("state") == "connected":
            return ok("the coordinator lets this node in")
        reason = str(contact.get("reason") or "the node has not been answered yet")
        return failed(
            reason, "If this stays, ask the coordinator whether the site is enrolled and not revoked."
        )

    def _enrolment(self) -> Enrolment:
        try:
            return self._enrolled()
        except FedCADError as error:
            raise NotCheckable("see 'enrolment'") from error
