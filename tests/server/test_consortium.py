import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium, tree_of

from fedcad.server.consortium import Consortium, config_text, make_config
from fedcad.shared.config.consortium import ConsortiumConfig
from fedcad.shared.errors import ConfigError, IdentityError


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return found_consortium(tmp_path)


def test_secrets_are_private_and_all_is_there(consortium: Consortium) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in consortium.keys.iterdir()}
    assert modes == dict.fromkeys(("ca.key", "server.key", "signing.key", "superexec.secret"), 0o600)
    for folder in (
        consortium.keys,
        consortium.studies,
        consortium.sites_folder,
        consortium.run,
        consortium.logs,
    ):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert consortium.database.parent.is_dir()
    assert len((consortium.keys / "superexec.secret").read_bytes()) == 64
    assert consortium.signing_key().public == consortium.public_key()
    assert consortium.authority().certificate == consortium.authority_certificate()
    assert consortium.sites() == {}


def test_no_public_file_holds_a_private_key(consortium: Consortium) -> None:
    for name, content in tree_of(consortium.folder).items():
        assert name.startswith("keys/") or b"PRIVATE" not in content


def test_nothing_is_overwritten(consortium: Consortium, tmp_path: Path) -> None:
    before = tree_of(consortium.folder)
    for folder in (consortium.folder, consortium.folder / "consortium.yaml", tmp_path / "absent" / "x"):
        with pytest.raises(ConfigError):
            Consortium.create(folder, make_config("other", "a:1"), now=NOW)
    assert tree_of(consortium.folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["lungs"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Consortium.create(tmp_path / "empty", make_config("a", "a:1")).config.name == "a"


def test_two_consortia_share_nothing(tmp_path: Path) -> None:
    one, other = found_consortium(tmp_path, "one"), found_consortium(tmp_path, "other")
    for name in ("ca.key", "server.key", "signing.key", "superexec.secret"):
        assert (one.keys / name).read_bytes() != (other.keys / name).read_bytes()
    assert one.fingerprint != other.fingerprint


def handshake(consortium: Consortium, ca: bytes, host: str) -> None:
    """Do a TLS handshake in memory, as a hospital's node and the coordinator's listener would."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(consortium.server_certificate, consortium.keys / "server.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 does by default
    client.load_verify_locations(cadata=ca.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("host", ["fedcad.example.org", "localhost", "127.0.0.1", "::1"])
def test_the_server_certificate_works_in_real_tls(tmp_path: Path, host: str) -> None:
    consortium = Consortium.create(tmp_path / "c", make_config("lungs", "fedcad.example.org:8443"))
    handshake(consortium, consortium.ca_certificate.read_bytes(), host)


def test_real_tls_refuses_another_host_and_another_authority(tmp_path: Path) -> None:
    consortium = Consortium.create(tmp_path / "c", make_config("lungs", "[2001:db8::1]:8443"))
    handshake(consortium, consortium.ca_certificate.read_bytes(), "2001:db8::1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(consortium, consortium.ca_certificate.read_bytes(), "fedcad.example.org")
    other = Consortium.create(tmp_path / "other", make_config("lungs", "[2001:db8::1]:8443"))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(consortium, other.ca_certificate.read_bytes(), "2001:db8::1")


def test_renewing_the_server_changes_its_certificate_alone(tmp_path: Path) -> None:
    consortium = Consortium.create(tmp_path / "c", make_config("lungs", "fedcad.example.org:8443"))
    enrol_hospital(consortium, build_hospital(tmp_path), tmp_path)
    before = tree_of(consortium.folder)
    later = NOW + timedelta(days=400)
    certificate = consortium.renew_server_certificate(now=later)
    assert certificate.not_valid_after_utc == later + timedelta(days=730)
    assert consortium.listener_certificate() == certificate
    after = tree_of(consortium.folder)
    assert [name for name in after if after[name] != before[name]] == ["server.crt"]
    assert consortium.sites(NOW)["north"].status == "enrolled"


@pytest.mark.parametrize("name", ["ca.key", "signing.key", "server.key"])
def test_keys_that_others_can_read_are_refused(consortium: Consortium, name: str) -> None:
    (consortium.keys / name).chmod(0o644)
    with pytest.raises(IdentityError, match="other accounts"):
        consortium.renew_server_certificate(now=NOW)
        consortium.signing_key()


def test_a_foreign_authority_key_is_noticed(consortium: Consortium, tmp_path: Path) -> None:
    (found_consortium(tmp_path, "other").keys / "ca.key").replace(consortium.keys / "ca.key")
    with pytest.raises(IdentityError, match="does not belong to"):
        consortium.authority()


def test_damaged_public_files_are_named(consortium: Consortium) -> None:
    (consortium.folder / "signing.pub").write_bytes(b"\xff")
    with pytest.raises(IdentityError, match=r"signing\.pub"):
        consortium.public_key()
    consortium.ca_certificate.unlink()
    with pytest.raises(IdentityError, match=r"ca\.crt"):
        consortium.authority_certificate()


def test_what_is_no_consortium_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedcad server init"):
        Consortium.load(tmp_path)


@pytest.mark.parametrize(("name", "address", "named"), [("Lungs", "a:1", "name"), ("a", "a", "host:port")])
def test_wrong_answers_are_explained(name: str, address: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make_config(name, address)


def test_the_written_file_says_what_was_configured(tmp_path: Path) -> None:
    config = ConsortiumConfig(
        name="a",
        address="[::1]:9",
        listen="[::]:9",
        control_port=1,
        metrics_port=2,
        certificate_days=3,
        stall_alert_s=4.5,
    )
    (tmp_path / "consortium.yaml").write_text(config_text(config))
    assert Consortium.load(tmp_path).config == config
    assert make_config("a", "b:7").listen == "0.0.0.0:7"
