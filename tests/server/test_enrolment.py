from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium, tree_of

from fedcad.client.enrolment import request
from fedcad.client.hospital import Hospital
from fedcad.server.consortium import Consortium
from fedcad.server.enrolment import enrol, existing, find_same, renew, revoke
from fedcad.shared.enrolment import EnrolmentRequest
from fedcad.shared.errors import IdentityError

LATER = NOW + timedelta(days=100)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return found_consortium(tmp_path)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return build_hospital(tmp_path)


def test_enrolment_names_the_site_and_the_coordinator(consortium: Consortium, hospital: Hospital) -> None:
    asked = request(hospital, now=NOW)
    enrolment = enrol(consortium, asked, now=NOW)
    facts = enrolment.verify(now=NOW)
    assert facts.member.signing_key == asked.public_key
    assert enrolment.coordinator_key == consortium.public_key()
    assert enrolment.authority_fingerprint == consortium.fingerprint
    assert enrolment.address == consortium.config.address
    site = consortium.sites(NOW)["north"]
    assert (site.node_key_openssh, site.signing_key) == (asked.node_key, asked.public_key)


def test_the_same_request_again_changes_nothing(consortium: Consortium, hospital: Hospital) -> None:
    asked = request(hospital, now=NOW)
    assert find_same(consortium, asked) is None
    first = enrol(consortium, asked, now=NOW)
    before = tree_of(consortium.folder)
    for replace in (False, True):
        assert find_same(consortium, asked, replace=replace) is not None
        assert enrol(consortium, asked, replace=replace, now=LATER) == first
    assert tree_of(consortium.folder) == before


def test_a_changed_request_is_refused(consortium: Consortium, hospital: Hospital) -> None:
    asked = request(hospital, now=NOW)
    changed = EnrolmentRequest(**{**asked.model_dump(), "site": "south"})
    with pytest.raises(IdentityError):
        enrol(consortium, changed, now=NOW)
    assert consortium.sites() == {}


def test_a_name_belongs_to_its_first_keys(consortium: Consortium, hospital: Hospital) -> None:
    enrol(consortium, request(hospital, now=NOW), now=NOW)
    asked = request(hospital, new_keys=True, now=LATER)
    with pytest.raises(IdentityError, match=r"other keys .*--replace"):
        enrol(consortium, asked, now=LATER)
    enrol(consortium, asked, replace=True, now=LATER)
    assert consortium.sites(LATER)["north"].signing_key == asked.public_key
    assert consortium.sites(LATER)["north"].enrolled == LATER


def test_replaced_keys_never_come_back(consortium: Consortium, hospital: Hospital) -> None:
    old = request(hospital, now=NOW)
    enrol(consortium, old, now=NOW)
    enrol(consortium, request(hospital, new_keys=True, now=LATER), replace=True, now=LATER)
    with pytest.raises(IdentityError, match="had before"):
        enrol(consortium, old, replace=True, now=LATER)


@pytest.mark.parametrize("part", ["node.key", "signing.key"])
def test_two_sites_cannot_share_a_key(
    consortium: Consortium, hospital: Hospital, tmp_path: Path, part: str
) -> None:
    enrol(consortium, request(hospital, now=NOW), now=NOW)
    other = build_hospital(tmp_path, "south")
    request(other, now=NOW)
    other.request_file.unlink()
    (other.keys / part).unlink()
    (other.keys / part).hardlink_to(hospital.keys / part)
    with pytest.raises(IdentityError, match="carries a key of site 'north'"):
        enrol(consortium, request(other, now=NOW), now=NOW)


def test_renewal_keeps_keys_and_leaves_others_alone(
    consortium: Consortium, hospital: Hospital, tmp_path: Path
) -> None:
    first, _ = enrol_hospital(consortium, hospital, tmp_path)
    other, _ = enrol_hospital(consortium, build_hospital(tmp_path, "south"), tmp_path)
    before = tree_of(consortium.folder)
    renewed = renew(consortium, "north", now=LATER)
    after = tree_of(consortium.folder)
    assert [name for name in after if after[name] != before[name]] == ["sites/north.json"]
    assert renewed.facts().member == first.facts().member
    assert renewed.facts().expires == LATER + timedelta(days=730)
    assert renewed.authority_fingerprint == first.authority_fingerprint
    assert other.verify(now=LATER)
    assert first.verify(now=LATER)  # the old one stays valid until its end
    assert consortium.sites(LATER)["north"].enrolled == NOW


def test_an_expired_site_is_renewed(consortium: Consortium, hospital: Hospital, tmp_path: Path) -> None:
    enrol_hospital(consortium, hospital, tmp_path)
    late = NOW + timedelta(days=1000)
    assert consortium.sites(late)["north"].status == "expired"
    renew(consortium, "north", now=late)
    assert consortium.sites(late)["north"].status == "enrolled"


def test_a_revoked_site_needs_new_keys(consortium: Consortium, hospital: Hospital) -> None:
    asked = request(hospital, now=NOW)
    enrol(consortium, asked, now=NOW)
    record = revoke(consortium, "north", "stolen disk", now=LATER)
    assert record.reason == "stolen disk"
    for attempt in (
        lambda: renew(consortium, "north", now=LATER),
        lambda: revoke(consortium, "north", "again", now=LATER),
        lambda: enrol(consortium, asked, now=LATER),
        lambda: enrol(consortium, asked, replace=True, now=LATER),
    ):
        with pytest.raises(IdentityError, match="revoked"):
            attempt()
    fresh = request(hospital, new_keys=True, now=LATER)
    enrol(consortium, fresh, replace=True, now=LATER)
    assert consortium.sites(LATER)["north"].status == "enrolled"


@pytest.mark.parametrize("name", ["south", "../north", "", "sites/north"])
def test_unknown_sites_are_named_with_the_known(
    consortium: Consortium, hospital: Hospital, name: str
) -> None:
    enrol(consortium, request(hospital, now=NOW), now=NOW)
    with pytest.raises(IdentityError, match="the sites are: north"):
        existing(consortium, name)
