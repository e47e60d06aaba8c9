"""The folder of a consortium at its coordinator: where everything is, its keys, its sites."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from fedcad.server.site_record import EnrolledSite, enrolled_site, read_record
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.certificates import (
    Authority,
    authority_fingerprint,
    load_certificate,
    make_authority,
    make_server_certificate,
    pem_of,
    read_authority,
)
from fedcad.shared.config.consortium import ConsortiumConfig
from fedcad.shared.config.load import load_consortium
from fedcad.shared.errors import ConfigError, IdentityError
from fedcad.shared.secret_files import make_private_folder, read_secret, write_secret
from fedcad.shared.signing import PublicKey, SigningKey

AUTHORITY_DAYS = 7300
"""Validity of the authority's certificate: 20 years, so that no study outlives it."""
CONFIG = "consortium.yaml"
_SECRET_BYTES = 32
_LARGEST_PEM_BYTES = 16_384
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Consortium:
    """A consortium's folder."""

    def __init__(self, folder: Path, config: ConsortiumConfig) -> None:
        """Hold a folder and its configuration; see :meth:`create` and :meth:`load`."""
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: Path, config: ConsortiumConfig, *, now: datetime | None = None) -> "Consortium":
        """Make the folder of a new consortium: keys, certificates, configuration.

        Args:
            folder: A new or empty folder.
            config: The consortium's configuration.
            now: Time from which certificates count.

        Guarantees:
            The folder is complete or as it was before; nothing is ever overwritten.

        Raises:
            ConfigError: The folder is not empty, or its parent is no folder.
        """
        check_new(folder)
        beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
        beside.mkdir(mode=0o755)
        consortium = cls(beside, config)
        consortium._fill(now or datetime.now(UTC))
        beside.rename(folder)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "Consortium":
        """Open a consortium's folder.

        Raises:
            ConfigError: It is none, or its configuration is wrong.
        """
        folder = folder.absolute()
        if not (folder / CONFIG).is_file():
            raise ConfigError(
                f"{folder}: no consortium's folder, since it has no {CONFIG}; "
                f"make one: fedcad server init {folder}"
            )
        return cls(folder, load_consortium(folder / CONFIG))

    @property
    def keys(self) -> Path:
        """Folder of the secret files."""
        return self.folder / "keys"

    @property
    def executor_secret(self) -> Path:
        """Secret that SuperLink and executor share, and who controls the SuperLink."""
        return self.keys / "superexec.secret"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the authority, PEM."""
        return self.folder / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """Certificate of the public listener, PEM."""
        return self.folder / "server.crt"

    @property
    def sites_folder(self) -> Path:
        """Folder with a record of each site."""
        return self.folder / "sites"

    @property
    def studies(self) -> Path:
        """Folder of the studies."""
        return self.folder / "studies"

    @property
    def database(self) -> Path:
        """SQLite file of the SuperLink."""
        return self.folder / "state" / "superlink.db"

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
        """Folder for what exists only while the coordinator runs."""
        return self.folder / "run"

    def signing_key(self) -> SigningKey:
        """Read the coordinator's signing key.

        Raises:
            IdentityError: It is absent, damaged, or readable by other accounts.
        """
        return SigningKey.load(self.keys / "signing.key")

    def public_key(self) -> PublicKey:
        """Read the coordinator's public key, which needs no secret.

        Raises:
            IdentityError: It is absent or damaged.
        """
        return PublicKey.from_hex(_read_public(self.folder / "signing.pub").strip())

    def authority(self) -> Authority:
        """Read the authority with its key.

        Raises:
            IdentityError: A file is absent, damaged or readable by others, or the key is another's.
        """
        certificate = self.authority_certificate()
        path = self.keys / "ca.key"
        key = _private_key(path, "the authority's key")
        if key.public_key() != certificate.public_key():
            raise IdentityError(
                f"{path} does not belong to {self.ca_certificate}; restore both from the backup"
            )
        return Authority(certificate, key)

    def authority_certificate(self) -> x509.Certificate:
        """Read the authority's certificate.

        Raises:
            IdentityError: It is absent or damaged.
        """
        return read_authority(_read_public(self.ca_certificate))

    def listener_certificate(self) -> x509.Certificate:
        """Read the certificate of the public listener.

        Raises:
            IdentityError: It is absent or damaged.
        """
        return load_certificate(_read_public(self.server_certificate), "the server's certificate")

    @property
    def fingerprint(self) -> str:
        """The authority's fingerprint, to be read out by telephone."""
        return authority_fingerprint(self.authority_certificate())

    def sites(self, now: datetime | None = None) -> Mapping[str, EnrolledSite]:
        """Return every site ever enrolled, by name, as it is at a time (default: now).

        Raises:
            IdentityError: A record is damaged.
        """
        coordinator, moment = self.public_key(), now or datetime.now(UTC)
        names = sorted(
            path.stem for path in self.sites_folder.glob("*.json") if not path.name.startswith(".")
        )
        records = {name: read_record(self.sites_folder, name) for name in names}
        return {
            name: enrolled_site(record, coordinator, now=moment)
            for name, record in records.items()
            if record is not None
        }

    def renew_server_certificate(self, *, now: datetime) -> x509.Certificate:
        """Make a new certificate for the same key, with the address of the configuration.

        Raises:
            IdentityError: A key cannot be used.
        """
        key = _private_key(self.keys / "server.key", "the server's key").public_key()
        names = list(dict.fromkeys((_host(self.config.address), *_LOOPBACK)))
        days = self.config.certificate_days
        certificate = make_server_certificate(self.authority(), key, names, now=now, days=days)
        write_bytes(self.server_certificate, pem_of(certificate).encode())
        self.server_certificate.chmod(0o644)
        return certificate

    def _fill(self, now: datetime) -> None:
        """Write everything that a new consortium has."""
        make_private_folder(self.keys)
        for path in (
            self.sites_folder,
            self.studies,
            self.database.parent,
            self.flower_home,
            self.logs,
            self.run,
        ):
            make_private_folder(path)
        authority = make_authority(self.config.name, now=now, days=AUTHORITY_DAYS)
        signing = SigningKey.generate()
        write_secret(self.keys / "ca.key", _pem(authority.key))
        write_secret(self.keys / "server.key", _pem(ec.generate_private_key(ec.SECP256R1())))
        write_secret(self.executor_secret, secrets.token_hex(_SECRET_BYTES).encode())
        signing.save(self.keys / "signing.key")
        public = {
            self.ca_certificate: authority.pem,
            self.folder / "signing.pub": f"{signing.public.hex}\n",
            self.folder / CONFIG: config_text(self.config),
        }
        for path, text in public.items():
            write_bytes(path, text.encode())
            path.chmod(0o644)
        self.renew_server_certificate(now=now)


def make_config(name: str, address: str) -> ConsortiumConfig:
    """Make the configuration of a new consortium.

    Raises:
        ConfigError: The name or address cannot be used.
    """
    try:
        config = ConsortiumConfig(name=name, address=address)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors()}
        expected = {
            "name": f"got the name {name[:64]!r}; expected 1 to 64 of a-z 0-9 . _ -, first a letter or digit",
            "address": f"got the address {address[:64]!r}; expected host:port as sites reach it, "
            "such as fedcad.example.org:8443",
        }
        raise ConfigError("; ".join(text for key, text in expected.items() if key in wrong)) from error
    port = address.rpartition(":")[2]
    return config.model_copy(update={"listen": f"0.0.0.0:{port}"})


def config_text(config: ConsortiumConfig) -> str:
    """Return a commented consortium.yaml."""
    return f"""\
# The consortium {config.name}. Every key: fedcad schema consortium. Check: fedcad check {CONFIG}

name: {config.name}

# Where the sites reach this coordinator. It stands in the server's certificate and in every enrolment: after
# a change, give `fedcad server renew FOLDER --server`, and `fedcad server renew FOLDER NAME` for each site,
# and start the coordinator again.
address: {_quoted(config.address)}

# Where this machine listens for the sites; let the firewall pass this port, and no other.
listen: {_quoted(config.listen)}

# On this machine only (127.0.0.1): control of studies, and metrics for Prometheus.
control_port: {config.control_port}
metrics_port: {config.metrics_port}

# Certificates of sites and server are valid for this many days; renewing one never touches the others.
certificate_days: {config.certificate_days}

# A running study without progress for this many seconds raises an alert.
stall_alert_s: {config.stall_alert_s:g}
"""


def check_new(folder: Path) -> None:
    """Check that a folder can be made: absent or empty, in a folder that exists.

    Raises:
        ConfigError: It cannot.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: exists and is no folder; nothing was changed. Give another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty; nothing was changed. Give a new or empty folder")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"{folder.absolute().parent}: no such folder; make it first")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private_key(path: Path, what: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_secret(path, what), password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: {what} is damaged; restore it from the backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: {what} is of another kind; restore it from the backup")
    return key


def _read_public(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST_PEM_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"{path}: cannot be read; restore it from the backup") from error
