from datetime import UTC, datetime

import pytest
from doctor_site import enrol, make_site

from fedcad.client.doctor.check import NotCheckable
from fedcad.client.doctor.premises import Premises
from fedcad.shared.errors import ConfigError, IdentityError


def test_whole_folder(tmp_path):
    make_site(tmp_path, patients=1)
    enrol(tmp_path, address="c.test:8443", now=datetime.now(UTC))
    premises = Premises(tmp_path)
    assert premises.site() == premises.read_site()
    assert premises.enrolment().address == "c.test:8443"
    assert (premises.archive, premises.labels) == (tmp_path / "archive", tmp_path / "labels.csv")
    assert premises.state == tmp_path / "state"
    hospital = premises.hospital()
    assert (premises.site_file, premises.keys) == (hospital.site_file, hospital.keys)
    assert (premises.enrolment_file, premises.state) == (hospital.enrolment_file, hospital.state)


def test_empty_folder_names_the_next_command(tmp_path):
    premises = Premises(tmp_path)
    with pytest.raises(ConfigError, match="fedcad client init"):
        premises.read_site()
    with pytest.raises(IdentityError, match="fedcad client request"):
        premises.read_enrolment()
    for piece in (premises.site, premises.enrolment, lambda: premises.archive, lambda: premises.state):
        with pytest.raises(NotCheckable):
            piece()


def test_requested_hospital_is_told_to_join(tmp_path):
    (tmp_path / "request.json").touch()
    with pytest.raises(IdentityError, match=r"requested, not yet enrolled.*fedcad client join"):
        Premises(tmp_path).read_enrolment()


def test_absolute_paths_stay(tmp_path):
    (tmp_path / "site.yaml").write_text("name: north\narchive: /pacs\nlabels: l.csv\nstate: s\n")
    assert str(Premises(tmp_path).archive) == "/pacs"


def test_forged_enrolment_is_not_used_for_the_network(tmp_path):
    make_site(tmp_path, patients=1)
    enrol(tmp_path, address="c.test:8443", now=datetime.now(UTC))
    path = tmp_path / "enrolment.json"
    path.write_text(path.read_text().replace("c.test", "e.test"))
    assert Premises(tmp_path).read_enrolment().address == "e.test:8443"
    with pytest.raises(NotCheckable):
        Premises(tmp_path).enrolment()
