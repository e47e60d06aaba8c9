"""Who this hospital is to the consortium: its certificate, and the keys that must belong to it.

Why not asked over the network: only a node's own log-in tells whether the coordinator still knows its key,
and a log-in beside a running node would disturb it. ``fedcad client status`` shows what the node was told.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedcad.client.doctor.check import Check, Finding, NotCheckable, failed, ok, warning
from fedcad.shared.certificates import check_certificate, node_key_hash
from fedcad.shared.enrolment import Enrolment
from fedcad.shared.errors import FedCADError, IdentityError
from fedcad.shared.secret_files import read_secret
from fedcad.shared.signing import SigningKey

GROUP = "Identity"
RENEW_DAYS = 30
"""Days before its end from which a certificate is asked to be renewed."""
_OTHERS = 0o077


class Identity:
    """The checks of one hospital's enrolment and keys."""

    def __init__(
        self,
        enrolled: Callable[[], Enrolment],
        *,
        name: Callable[[], str],
        signing_key: Path,
        node_key: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take how the enrolment and the site's name are found, both may raise, and where the keys are."""
        self._enrolled = enrolled
        self._name = name
        self._signing_key = signing_key
        self._node_key = node_key
        self._now = now

    def checks(self) -> tuple[Check, ...]:
        """Return the checks."""
        return (
            Check(GROUP, "enrolment", lambda _: self.enrolment()),
            Check(GROUP, "certificate", lambda _: self.certificate()),
            Check(GROUP, "keys fit", lambda _: self.keys()),
        )

    def enrolment(self) -> Finding:
        """Whether the hospital is enrolled, under the name of its site file."""
        enrolled = self._enrolled()
        site = enrolled.facts().member.site
        found = f"enrolled at {enrolled.consortium} as {site}; the coordinator is {enrolled.address}"
        if site != self._name():
            return failed(
                f"{found}, but site.yaml says name: {self._name()}",
                f"Write name: {site} into site.yaml.",
            )
        return ok(found)

    def certificate(self) -> Finding:
        """Whether the site's certificate is valid, and for how long."""
        enrolled = self._enrolment()
        try:
            facts = check_certificate(enrolled.certificate, enrolled.ca_pem, now=self._now())
        except IdentityError as error:
            return failed(str(error), "Ask the coordinator for a renewal: fedcad client request --renew.")
        days = (facts.expires - self._now()).days
        found = f"valid until {facts.expires:%Y-%m-%d}"
        if days < RENEW_DAYS:
            return warning(f"{found}: {days} days", "Ask the coordinator to renew it in time.")
        return ok(found)

    def keys(self) -> Finding:
        """Whether both private keys are those that the certificate speaks of."""
        member = self._enrolment().facts().member
        if any(
            path.exists() and path.stat().st_mode & _OTHERS for path in (self._signing_key, self._node_key)
        ):
            raise NotCheckable("see 'keys' above")
        wrong = []
        if SigningKey.load(self._signing_key).public.hex != member.signing_key.hex:
            wrong.append(self._signing_key.name)
        if node_key_hash(load_node_key(self._node_key).public_key()) != member.node_key_hash:
            wrong.append(self._node_key.name)
        if wrong:
            return failed(
                f"{' and '.join(wrong)} is not of this enrolment",
                "Put back the keys with which the enrolment was requested, from the backup of keys/, or "
                "make a new request: fedcad client request.",
            )
        return ok("both keys belong to the certificate")

    def _enrolment(self) -> Enrolment:
        try:
            return self._enrolled()
        except FedCADError as error:
            raise NotCheckable("see 'enrolment'") from error


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key with which the node logs in, EC in OpenSSH form.

    Raises:
        IdentityError: It cannot be read, is open to other accounts, or is no such key.
    """
    try:
        key = load_ssh_private_key(read_secret(path, "the node's key"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(
            f"{path}: this is no key in OpenSSH form without a password; put back the one from the backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: expected an elliptic-curve key; put back the one from the backup")
    return key
