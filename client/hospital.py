"""The folder of a hospital node: where everything is, its keys, its enrolment."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedcad.shared.certificates import CertificateFacts, node_key_hash
from fedcad.shared.config.load import load_site
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.enrolment import Enrolment, read_file
from fedcad.shared.errors import ConfigError, IdentityError
from fedcad.shared.secret_files import read_secret
from fedcad.shared.signing import SigningKey

SITE_FILE = "site.yaml"


class Hospital:
    """A hospital node's folder."""

    def __init__(self, folder: Path, site: SiteConfig) -> None:
        """Hold a folder and its site file's content; see :meth:`load`."""
        self.folder = folder
        self.site = site

    @classmethod
    def load(cls, folder: Path) -> "Hospital":
        """Open a hospital node's folder.

        Raises:
            ConfigError: It is none, or its site file is wrong.
        """
        folder = folder.absolute()
        if not (folder / SITE_FILE).is_file():
            raise ConfigError(
                f"{folder}: no hospital's folder, since it has no {SITE_FILE}; "
                f"make one: fedcad client init {folder}"
            )
        return cls(folder, load_site(folder / SITE_FILE))

    @property
    def site_file(self) -> Path:
        """The site file."""
        return self.folder / SITE_FILE

    @property
    def keys(self) -> Path:
        """Folder of the private keys."""
        return self.folder / "keys"

    @property
    def node_key_file(self) -> Path:
        """Private key with which the node logs in: EC P-384, OpenSSH form."""
        return self.keys / "node.key"

    @property
    def signing_key_file(self) -> Path:
        """Private key with which the site signs: Ed25519, PEM."""
        return self.keys / "signing.key"

    @property
    def request_file(self) -> Path:
        """The enrolment request, to be sent to the coordinator."""
        return self.folder / "request.json"

    @property
    def enrolment_file(self) -> Path:
        """What the coordinator returned."""
        return self.folder / "enrolment.json"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the consortium's authority, PEM."""
        return self.folder / "ca.crt"

    @property
    def state(self) -> Path:
        """Folder for index, caches, algorithm state and outbox."""
        return self.folder / self.site.state

    @property
    def flower_home(self) -> Path:
        """Folder for Flower's own files."""
        return self.folder / "flwr"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.folder / "logs"

    @property
    def run(self) -> Path:
        """Folder for what exists only while the node runs."""
        return self.folder / "run"

    @property
    def socket(self) -> Path:
        """Unix socket of the training worker."""
        return self.run / "worker.sock"

    def signing_key(self) -> SigningKey:
        """Read the site's signing key.

        Raises:
            IdentityError: It is absent, damaged, or readable by other accounts.
        """
        return SigningKey.load(self.signing_key_file)

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """Read the node's private key.

        Raises:
            IdentityError: It is absent, damaged, or readable by other accounts.
        """
        content = read_secret(self.node_key_file, "the node's key")
        try:
            key = load_ssh_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(
                f"{self.node_key_file}: the node's key is damaged; "
                "make new keys: fedcad client request --new-keys"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityError(f"{self.node_key_file}: expected an EC key in OpenSSH form, got another kind")
        return key

    def enrolment(self) -> Enrolment:
        """Read what the coordinator returned; :meth:`check_enrolment` checks it.

        Raises:
            IdentityError: The site has not joined, or the file was changed.
        """
        if not self.enrolment_file.is_file():
            raise IdentityError(
                f"{self.folder}: this site has not joined a consortium; send {self.request_file.name} to the "
                "coordinator (fedcad client request), then give what it returns to: fedcad client join"
            )
        return read_file(
            self.enrolment_file, Enrolment, "an enrolment; join again with the coordinator's file"
        )

    def check_enrolment(
        self, enrolment: Enrolment | None = None, *, now: datetime | None = None
    ) -> CertificateFacts:
        """Check an enrolment (default: the installed one) against this site's name and own keys.

        Raises:
            IdentityError: A signature is wrong, a certificate is not valid now, or it is not this site's.
        """
        checked = self.enrolment() if enrolment is None else enrolment
        facts = checked.verify(now=now or datetime.now(UTC))
        member = facts.member
        if member.site != self.site.name:
            raise IdentityError(
                f"the enrolment is for site {member.site!r}, but {self.site_file} says "
                f"name: {self.site.name}; ask the coordinator for this site's own file"
            )
        if member.signing_key != self.signing_key().public:
            raise IdentityError(
                f"the enrolment is for other keys than those in {self.keys}; send the present "
                f"{self.request_file.name} to the coordinator again"
            )
        if member.node_key_hash != node_key_hash(self.node_key().public_key()):
            raise IdentityError(
                f"the enrolment is for another node key than {self.node_key_file}; send the present "
                f"{self.request_file.name} to the coordinator again"
            )
        return facts
