"""Enrolment, certificate and keys as the real code makes them, then spoilt one by one."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from doctor_site import enrol, make_site

from fedcad.client.doctor.check import NotCheckable, Verdict
from fedcad.client.doctor.identity import Identity
from fedcad.client.doctor.premises import Premises
from fedcad.shared.errors import IdentityError

NOW = datetime(2030, 5, 1, tzinfo=UTC)
OK, WARNING, FAILED, SKIPPED = Verdict


@pytest.fixture
def folder(tmp_path):
    make_site(tmp_path, patients=1)
    enrol(tmp_path, address="coordinator.test:8443", now=NOW, days=365)
    return tmp_path


def identity_of(folder, *, after_days=0.0):
    premises = Premises(folder)
    return Identity(premises.read_enrolment, premises.hospital, lambda: NOW + timedelta(days=after_days))


def test_enrolled_hospital(folder):
    identity = identity_of(folder)
    findings = [identity.enrolment(), identity.certificate(), identity.keys()]
    assert [finding.verdict for finding in findings] == [OK] * 3
    assert findings[0].found == "enrolled at trial as north; the coordinator is coordinator.test:8443"
    assert findings[1].found == "valid until 2031-05-01"


def test_other_name_in_the_site_file(folder):
    site_file = folder / "site.yaml"
    site_file.write_text(site_file.read_text().replace("north", "south"))
    finding = identity_of(folder).enrolment()
    assert finding.verdict is FAILED
    assert "name: north" in finding.remedy


@pytest.mark.parametrize(
    ("after_days", "verdict"),
    [(-2, FAILED), (0, OK), (335, OK), (335.1, WARNING), (364.9, WARNING), (365.1, FAILED)],
)
def test_certificate_in_time(folder, after_days, verdict):
    finding = identity_of(folder, after_days=after_days).certificate()
    assert finding.verdict is verdict
    assert bool(finding.remedy) == (verdict is not OK)


@pytest.mark.parametrize("key", ["signing.key", "node.key"])
def test_key_of_another_enrolment_is_named(folder, tmp_path_factory, key):
    other = tmp_path_factory.mktemp("other")
    enrol(other, address="c:1", now=NOW)
    (other / "keys" / key).replace(folder / "keys" / key)
    finding = identity_of(folder).keys()
    assert finding.verdict is FAILED
    assert finding.found.startswith(key)
    assert "backup" in finding.remedy


def test_absent_and_damaged_keys(folder):
    (folder / "keys" / "node.key").write_text("nonsense")
    with pytest.raises(IdentityError, match="damaged"):
        identity_of(folder).keys()
    (folder / "keys" / "node.key").unlink()
    with pytest.raises(IdentityError, match="cannot be read"):
        identity_of(folder).keys()


def test_key_open_to_others_is_one_problem(folder):
    (folder / "keys" / "node.key").chmod(0o644)
    with pytest.raises(NotCheckable, match="keys"):
        identity_of(folder).keys()


def test_changed_enrolment_is_refused(folder):
    path = folder / "enrolment.json"
    path.write_text(path.read_text().replace("coordinator.test", "elsewhere.test"))
    with pytest.raises(IdentityError):
        identity_of(folder).enrolment()


def test_without_enrolment_only_one_check_speaks(tmp_path):
    make_site(tmp_path, patients=1)
    identity = identity_of(tmp_path)
    with pytest.raises(IdentityError, match="fedcad client join"):
        identity.enrolment()
    for check in (identity.certificate, identity.keys):
        with pytest.raises(NotCheckable):
            check()


def contact(folder, *, state, reason="", age_s=0.0):
    run = folder / "run"
    run.mkdir(exist_ok=True)
    path = run / "contact.json"
    path.write_text(json.dumps({"state": state, "reason": reason}))
    os.utime(path, (time.time() - age_s,) * 2)


def test_a_running_node_knows_whether_it_is_let_in(folder):
    contact(folder, state="connected")
    assert identity_of(folder).accepted().verdict is OK
    contact(folder, state="not connected", reason="its key is unknown")
    finding = identity_of(folder).accepted()
    assert finding.verdict is FAILED
    assert "its key is unknown" in finding.found


@pytest.mark.parametrize("age_s", [None, 500.0])
def test_a_node_that_does_not_run_knows_nothing(folder, age_s):
    if age_s is not None:
        contact(folder, state="connected", age_s=age_s)
    with pytest.raises(NotCheckable, match="not running"):
        identity_of(folder).accepted()
