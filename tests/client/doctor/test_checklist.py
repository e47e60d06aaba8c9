"""The whole list on real folders: in order, empty, and with one piece broken."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from doctor_site import enrol, listing, make_site, write_study
from loopback_network import LOOPBACK, closed_port, connect_proxy, https_server, server_context

from fedcad.client.doctor.check import NotCheckable, Verdict, examine
from fedcad.client.doctor.checklist import Trial, checks_of, route_of
from fedcad.client.doctor.premises import Premises
from fedcad.client.doctor.study_file import load_study_file
from fedcad.shared.certificates import make_server_certificate, pem_of

OK, WARNING, FAILED, SKIPPED = Verdict
SAMPLED = ("archive", "decoding", "labels fit")
"""Checks that start a process, which takes seconds."""


def findings(folder, environment=None, trial=None, without=()):
    checks = [
        check for check in checks_of(Premises(folder), environment or {}, trial) if check.name not in without
    ]
    results = examine(checks, lambda _: lambda text: None)
    return {result.check.name: result.finding for result in results}


def failures(found):
    return [name for name, finding in found.items() if finding.verdict is FAILED]


def coordinator(folder, authority, *names):
    """Return the server side of TLS with the certificate that a coordinator makes itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = make_server_certificate(authority, key.public_key(), list(names), now=now, days=1)
    return server_context(folder, key, pem_of(certificate))


@pytest.fixture
def hospital(tmp_path):
    return make_site(tmp_path / "north", patients=20)


def test_everything_is_go_with_the_real_enrolment_and_certificates(hospital, tmp_path):
    trial = Trial(path := write_study(tmp_path), load_study_file(path))
    port = closed_port()
    authority = enrol(hospital, address=f"{LOOPBACK}:{port}", now=datetime.now(UTC))
    before = listing(hospital)
    with https_server(coordinator(tmp_path, authority, LOOPBACK), port=port):
        found = findings(hospital, trial=trial)
    assert failures(found) == []
    assert found["read-only"].verdict in (OK, WARNING)
    assert {
        found[name].verdict for name in ("enrolment", "keys fit", "TLS", "clock", "cases", "training")
    } == {OK}
    assert listing(hospital) == before
    assert "Secret" not in str(found)


def test_empty_folder_has_two_problems_and_names_both_commands(tmp_path):
    found = findings(tmp_path)
    assert failures(found) == ["site file", "enrolment"]
    assert "fedcad client init" in found["site file"].found
    assert found["keys"].verdict is found["archive"].verdict is found["port"].verdict is SKIPPED


def test_wrong_line_of_the_site_file_is_shown(hospital):
    (hospital / "site.yaml").write_text("name: north\narchve: archive\nlabels: labels.csv\nstate: state\n")
    found = findings(hospital)
    assert failures(found) == ["site file", "enrolment"]
    assert "site.yaml:2" in found["site file"].found


def test_each_broken_piece_is_one_problem(hospital):
    enrol(hospital, address=f"{LOOPBACK}:{closed_port()}", now=datetime.now(UTC))
    (hospital / "keys" / "node.key").chmod(0o644)
    (hospital / "labels.csv").unlink()
    (hospital / "state").mkdir()
    (hospital / "state").chmod(0o755)
    assert failures(findings(hospital, without=SAMPLED)) == ["keys", "folders", "port", "labels"]


@pytest.mark.parametrize(
    ("line", "environment", "expected"),
    [
        ("", {}, None),
        ("", {"HTTPS_PROXY": "http://env:1"}, "env:1 (from HTTPS_PROXY)"),
        ("proxy: http://own:2\n", {"HTTPS_PROXY": "http://env:1"}, "own:2 (from site.yaml)"),
        ('proxy: ""\n', {"HTTPS_PROXY": "http://env:1"}, None),
        ("proxy: http://own:2\n", {"NO_PROXY": "coordinator.test"}, None),
    ],
)
def test_route_is_that_of_the_nodes_processes(hospital, line, environment, expected):
    enrol(hospital, address="coordinator.test:8443", now=datetime.now(UTC))
    with (hospital / "site.yaml").open("a") as stream:
        stream.write(line)
    route = route_of(Premises(hospital), environment)
    assert (route.host, route.port) == ("coordinator.test", 8443)
    assert (route.proxy and str(route.proxy)) == expected


def test_coordinator_behind_the_proxy_of_the_environment(hospital, tmp_path):
    authority = enrol(hospital, address="coordinator.test:8443", now=datetime.now(UTC))
    context = coordinator(tmp_path, authority, "coordinator.test")
    with https_server(context) as target, connect_proxy(target) as port:
        found = findings(hospital, {"https_proxy": f"http://{LOOPBACK}:{port}"}, without=SAMPLED)
    assert failures(found) == []
    assert found["proxy"].verdict is found["TLS"].verdict is OK


def test_route_needs_an_enrolment(tmp_path):
    with pytest.raises(NotCheckable):
        route_of(Premises(Path(tmp_path)), {})
