import json
from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital, enrol_hospital, found_consortium

from fedcad.server.consortium import Consortium
from fedcad.server.enrolment import revoke
from fedcad.server.site_record import enrolled_site, read_record, write_record
from fedcad.shared.errors import IdentityError
from fedcad.shared.signing import SigningKey


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    made = found_consortium(tmp_path)
    enrol_hospital(made, build_hospital(tmp_path), tmp_path)
    return made


@pytest.mark.parametrize(
    ("days", "status", "left"),
    [(0, "enrolled", 730), (729.99, "enrolled", 0), (730, "expired", 0), (732, "expired", -2)],
)
def test_status_and_days_by_hand(consortium: Consortium, days: float, status: str, left: int) -> None:
    at = NOW + timedelta(days=days)
    site = consortium.sites(at)["north"]
    assert (site.status, site.days_left(at)) == (status, left)
    assert site.enrolled == NOW
    assert bool(site.objection) is (status != "enrolled")


def test_a_revoked_site_stays_revoked_when_it_expires(consortium: Consortium) -> None:
    revoke(consortium, "north", "left the consortium", now=NOW)
    for days in (0, 800):
        site = consortium.sites(NOW + timedelta(days=days))["north"]
        assert (site.status, site.objection) == ("revoked", "its enrolment was revoked: left the consortium")


def test_a_record_survives_its_file(consortium: Consortium) -> None:
    record = read_record(consortium.sites_folder, "north")
    assert record is not None
    write_record(consortium.sites_folder, record)
    assert read_record(consortium.sites_folder, "north") == record
    assert read_record(consortium.sites_folder, "south") is None


def test_a_record_under_another_name_is_refused(consortium: Consortium) -> None:
    (consortium.sites_folder / "north.json").rename(consortium.sites_folder / "south.json")
    with pytest.raises(IdentityError, match="record of another site"):
        consortium.sites()


def test_a_record_with_exchanged_keys_is_refused(consortium: Consortium, tmp_path: Path) -> None:
    """Who can write the record, but has no key of the coordinator, cannot put a key of theirs into it."""
    other = build_hospital(tmp_path, "south")
    enrol_hospital(consortium, other, tmp_path)
    north, south = (
        json.loads((consortium.sites_folder / f"{name}.json").read_text()) for name in ("north", "south")
    )
    forged = {**north, "request": {**south["request"], "site": "north"}}
    text = json.dumps(forged, indent=2, sort_keys=True) + "\n"
    (consortium.sites_folder / "north.json").write_text(text)
    with pytest.raises(IdentityError, match="does not fit this consortium's keys"):
        consortium.sites(NOW)


def test_a_record_of_another_consortium_is_refused(consortium: Consortium) -> None:
    record = read_record(consortium.sites_folder, "north")
    assert record is not None
    with pytest.raises(IdentityError, match="does not fit"):
        enrolled_site(record, SigningKey.generate().public, now=NOW)
