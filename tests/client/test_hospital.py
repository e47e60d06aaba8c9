from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium

from fedcad.client.enrolment import join, request
from fedcad.client.hospital import Hospital
from fedcad.server.enrolment import renew
from fedcad.shared.enrolment import file_text
from fedcad.shared.errors import ConfigError, IdentityError
from fedcad.shared.secret_files import write_secret
from fedcad.shared.signing import SigningKey


@pytest.fixture
def joined(tmp_path: Path) -> Hospital:
    consortium, hospital = found_consortium(tmp_path), build_hospital(tmp_path)
    _, path = enrol_hospital(consortium, hospital, tmp_path)
    join(hospital, path, consortium.fingerprint, now=NOW)
    return hospital


def test_paths_lie_in_the_folder(tmp_path: Path) -> None:
    hospital = build_hospital(tmp_path)
    for path in (
        hospital.site_file,
        hospital.keys,
        hospital.node_key_file,
        hospital.signing_key_file,
        hospital.request_file,
        hospital.enrolment_file,
        hospital.ca_certificate,
        hospital.state,
        hospital.flower_home,
        hospital.logs,
        hospital.run,
        hospital.socket,
    ):
        assert path.is_absolute()
        assert path.is_relative_to(hospital.folder)


def test_what_is_no_hospital_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedcad client init"):
        Hospital.load(tmp_path)


def test_a_site_that_has_not_joined_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"fedcad client request.*fedcad client join"):
        build_hospital(tmp_path).enrolment()


def test_an_installed_enrolment_is_checked_against_the_sites_own_keys(joined: Hospital) -> None:
    facts = joined.check_enrolment(now=NOW)
    assert facts.member.signing_key == joined.signing_key().public
    with pytest.raises(IdentityError, match=r"ended at .* and it is"):
        joined.check_enrolment(now=NOW + timedelta(days=731))
    with pytest.raises(IdentityError, match=r"valid from .* but it is"):
        joined.check_enrolment(now=NOW - timedelta(days=1))


def test_exchanged_keys_are_noticed(joined: Hospital) -> None:
    joined.signing_key_file.unlink()
    SigningKey.generate().save(joined.signing_key_file)
    with pytest.raises(IdentityError, match="for other keys"):
        joined.check_enrolment(now=NOW)


def test_an_exchanged_node_key_is_noticed(joined: Hospital, tmp_path: Path) -> None:
    other = build_hospital(tmp_path, "south")
    request(other, now=NOW)
    other.node_key_file.replace(joined.node_key_file)
    with pytest.raises(IdentityError, match="another node key"):
        joined.check_enrolment(now=NOW)


def test_a_renamed_site_is_noticed(joined: Hospital) -> None:
    text = joined.site_file.read_text().replace("name: north", "name: south")
    joined.site_file.write_text(text)
    with pytest.raises(IdentityError, match=r"for site 'north'.*name: south"):
        Hospital.load(joined.folder).check_enrolment(now=NOW)


def test_a_changed_enrolment_is_noticed(joined: Hospital) -> None:
    text = joined.enrolment_file.read_text().replace("fedcad.example.org", "fedcad.example.com")
    joined.enrolment_file.write_text(text)
    with pytest.raises(IdentityError, match="changed on the way"):
        joined.check_enrolment(now=NOW)


@pytest.mark.parametrize("name", ["node.key", "signing.key"])
def test_keys_that_others_can_read_are_refused(joined: Hospital, name: str) -> None:
    (joined.keys / name).chmod(0o644)
    with pytest.raises(IdentityError, match=f"{name}.* other accounts .*0644"):
        joined.check_enrolment(now=NOW)


def test_what_is_no_node_key_is_refused_without_showing_it(joined: Hospital) -> None:
    joined.node_key_file.unlink()
    write_secret(joined.node_key_file, joined.signing_key_file.read_bytes())
    with pytest.raises(IdentityError, match="damaged") as caught:
        joined.node_key()
    assert "PRIVATE" not in str(caught.value)


def test_a_renewal_is_for_the_same_keys(tmp_path: Path) -> None:
    consortium, hospital = found_consortium(tmp_path), build_hospital(tmp_path)
    enrol_hospital(consortium, hospital, tmp_path)
    late = NOW + timedelta(days=800)
    renewed = renew(consortium, "north", now=late)
    assert hospital.check_enrolment(renewed, now=late).expires == late + timedelta(days=730)
    assert file_text(renewed)
