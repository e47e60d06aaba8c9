import stat
from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium, tree_of
from cryptography.hazmat.primitives.asymmetric import ec

from fedcad.client.enrolment import examine, is_known_authority, join, put_keys_aside, request
from fedcad.client.hospital import Hospital
from fedcad.server.enrolment import enrol
from fedcad.shared.enrolment import EnrolmentRequest, file_text, openssh_text, read_file
from fedcad.shared.errors import IdentityError

LATER = NOW + timedelta(days=1)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return build_hospital(tmp_path)


def test_keys_are_made_once_and_privately(hospital: Hospital) -> None:
    made = request(hospital, now=NOW)
    keys = tree_of(hospital.keys)
    assert set(keys) == {"node.key", "signing.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in hospital.keys.iterdir()} == {0o600}
    assert stat.S_IMODE(hospital.keys.stat().st_mode) == 0o700
    assert request(hospital, now=LATER) == made
    assert tree_of(hospital.keys) == keys
    assert read_file(hospital.request_file, EnrolmentRequest, "it") == made
    made.verify()


def test_the_node_key_is_what_flower_reads(hospital: Hospital) -> None:
    made = request(hospital, now=NOW)
    key = hospital.node_key()
    assert isinstance(key.curve, ec.SECP384R1)
    assert hospital.node_key_file.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert openssh_text(key.public_key()) == made.node_key


def test_a_lost_or_changed_request_is_written_again_for_the_same_keys(hospital: Hospital) -> None:
    made = request(hospital, now=NOW)
    for content in (None, b"{}", file_text(made).replace(b"north", b"south")):
        hospital.request_file.unlink(missing_ok=True)
        if content is not None:
            hospital.request_file.write_bytes(content)
        again = request(hospital, now=LATER)
        assert (again.node_key, again.signing_key) == (made.node_key, made.signing_key)
        again.verify()


def test_a_renamed_site_asks_under_its_new_name(hospital: Hospital) -> None:
    request(hospital, now=NOW)
    hospital.site_file.write_text(hospital.site_file.read_text().replace("name: north", "name: south"))
    assert request(Hospital.load(hospital.folder), now=NOW).site == "south"


@pytest.mark.parametrize("lost", [["node.key"], ["signing.key"], ["node.key", "signing.key"]])
def test_lost_keys_are_never_made_anew_silently(hospital: Hospital, lost: list[str]) -> None:
    request(hospital, now=NOW)
    for name in lost:
        (hospital.keys / name).unlink()
    before = tree_of(hospital.folder)
    with pytest.raises(IdentityError, match="--new-keys"):
        request(hospital, now=LATER)
    assert tree_of(hospital.folder) == before


def test_an_interruption_between_the_keys_is_overcome(hospital: Hospital) -> None:
    request(hospital, now=NOW)
    hospital.signing_key_file.unlink()
    hospital.request_file.unlink()
    with_one_key = hospital.node_key_file.read_bytes()
    request(hospital, now=NOW).verify()
    assert hospital.node_key_file.read_bytes() != with_one_key


def test_new_keys_keep_the_old_ones_aside(hospital: Hospital) -> None:
    old = request(hospital, now=NOW)
    before = tree_of(hospital.keys)
    new = request(hospital, new_keys=True, now=LATER)
    assert new.fingerprint != old.fingerprint
    aside = hospital.keys / "old-20261126T120000Z"
    assert before.items() <= tree_of(aside).items()
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    with pytest.raises(IdentityError, match="wait a second"):
        put_keys_aside(hospital, LATER)
    assert request(hospital, now=LATER) == new


def test_new_keys_before_any_are_just_the_keys(hospital: Hospital) -> None:
    assert put_keys_aside(hospital, NOW) is None
    request(hospital, new_keys=True, now=NOW).verify()


def test_joining_installs_and_joining_again_changes_nothing(hospital: Hospital, tmp_path: Path) -> None:
    consortium = found_consortium(tmp_path)
    enrolment, path = enrol_hospital(consortium, hospital, tmp_path)
    assert not is_known_authority(hospital, enrolment)
    facts = join(hospital, path, consortium.fingerprint.upper(), now=NOW)
    assert facts.member.site == "north"
    assert hospital.enrolment() == enrolment
    assert hospital.ca_certificate.read_bytes() == consortium.ca_certificate.read_bytes()
    assert is_known_authority(hospital, enrolment)
    before = tree_of(hospital.folder)
    join(hospital, path, consortium.fingerprint, now=NOW)
    assert tree_of(hospital.folder) == before


def test_another_consortiums_file_is_refused_and_changes_nothing(hospital: Hospital, tmp_path: Path) -> None:
    """An attacker on the way answers with a consortium of their own; only the fingerprint can tell."""
    consortium, attacker = found_consortium(tmp_path), found_consortium(tmp_path, "attacker")
    enrol_hospital(consortium, hospital, tmp_path)
    _, path = enrol_hospital(attacker, hospital, tmp_path)
    before = tree_of(hospital.folder)
    with pytest.raises(IdentityError, match="Nothing was installed"):
        join(hospital, path, consortium.fingerprint, now=NOW)
    with pytest.raises(IdentityError, match="64 hexadecimal digits"):
        join(hospital, path, attacker.fingerprint[:19], now=NOW)
    assert tree_of(hospital.folder) == before


def test_another_sites_file_is_refused(hospital: Hospital, tmp_path: Path) -> None:
    consortium = found_consortium(tmp_path)
    request(hospital, now=NOW)
    _, path = enrol_hospital(consortium, build_hospital(tmp_path, "south"), tmp_path)
    before = tree_of(hospital.folder)
    with pytest.raises(IdentityError, match="for site 'south'"):
        join(hospital, path, consortium.fingerprint, now=NOW)
    assert tree_of(hospital.folder) == before


def test_a_file_for_earlier_keys_is_refused(hospital: Hospital, tmp_path: Path) -> None:
    consortium = found_consortium(tmp_path)
    _, path = enrol_hospital(consortium, hospital, tmp_path)
    request(hospital, new_keys=True, now=LATER)
    with pytest.raises(IdentityError, match="for other keys"):
        join(hospital, path, consortium.fingerprint, now=NOW)


def test_a_mixture_of_two_consortia_is_refused(hospital: Hospital, tmp_path: Path) -> None:
    """Real authority and certificate, but the attacker's key and address."""
    consortium, attacker = found_consortium(tmp_path), found_consortium(tmp_path, "attacker")
    real = enrol(consortium, request(hospital, now=NOW), now=NOW)
    content = real.model_dump(exclude={"kind", "format", "coordinator", "signature"})
    forged = type(real).make({**content, "address": "attacker.example:8443"}, attacker.signing_key())
    path = tmp_path / "forged.json"
    path.write_bytes(file_text(forged))
    with pytest.raises(IdentityError, match="another key than the one its authority names"):
        join(hospital, path, consortium.fingerprint, now=NOW)


@pytest.mark.parametrize("days", [-2, 731])
def test_dates_are_checked(hospital: Hospital, tmp_path: Path, days: int) -> None:
    consortium = found_consortium(tmp_path)
    _, path = enrol_hospital(consortium, hospital, tmp_path)
    with pytest.raises(IdentityError, match="clock"):
        examine(hospital, path, now=NOW + timedelta(days=days))
