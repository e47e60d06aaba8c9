"""Metrics: served on this machine only, read at every scrape, in Prometheus' own format."""

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from study_folders import NOW, Lost, Wanted, add_study, make_consortium, run_rounds, say_running

from fedcad.server.consortium import Consortium
from fedcad.server.metrics import ConsortiumCollector, serve_metrics
from fedcad.shared.errors import UnsupportedError
from fedcad.shared.instance_lock import InstanceLock

Values = dict[tuple[str, ...], float]


@pytest.fixture
def home(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def values(home: Consortium, now: float = NOW) -> Values:
    """Return every sample by name and label values."""
    found = {}
    for family in ConsortiumCollector(home.folder, lambda: now).collect():
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def test_every_value_by_hand(home: Consortium) -> None:
    folder = add_study(home, participation={"quorum": 1, "deadline_s": 60.0})
    run_rounds(folder, lost={("b", 2): Lost("cable")}, stop_in=3)
    with folder.hold(), InstanceLock(home.run / "supervisor.lock", "it"):
        say_running(home, processes={"superlink": {"state": "running"}, "superexec": {"state": "waiting"}})
        found = values(home)
    study = ("small", "1")
    expected: Values = {
        ("fedcad_readable",): 1.0,
        ("fedcad_process_up", "superlink"): 1.0,
        ("fedcad_process_up", "superexec"): 0.0,
        ("fedcad_problems",): 0.0,
        ("fedcad_study_round", *study): 2.0,
        ("fedcad_study_rounds", *study): 3.0,
        ("fedcad_study_quorum", *study): 1.0,
        ("fedcad_study_state", *study, "running"): 1.0,
        ("fedcad_study_state", *study, "waiting"): 0.0,
        ("fedcad_study_stalled", *study): 0.0,
        ("fedcad_study_sent_bytes_total", *study): 60.0,
        ("fedcad_study_received_bytes_total", *study): 120.0,
        ("fedcad_site_last_contact_seconds", *study, "a"): 5.0,
        ("fedcad_site_rounds_total", *study, "a", "counted"): 2.0,
        ("fedcad_site_rounds_total", *study, "b", "counted"): 1.0,
        ("fedcad_site_rounds_total", *study, "b", "lost"): 1.0,
        ("fedcad_contract_expires_seconds", *study): 180 * 86400 - 3600.0,
        ("fedcad_certificate_expires_seconds", "the coordinator's server"): 730 * 86400 - 3600.0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert sum(value for name, value in found.items() if name[0] == "fedcad_study_state") == 1.0


def test_a_stall_is_seen_without_the_supervisor(home: Consortium) -> None:
    folder = add_study(home)
    since = folder.wish()
    assert since is not None
    assert values(home, since.since_when() + 3599)[("fedcad_study_stalled", "small", "1")] == 0.0
    assert values(home, since.since_when() + 3601)[("fedcad_study_stalled", "small", "1")] == 1.0
    folder.want(Wanted.PAUSED)
    assert values(home, since.since_when() + 9999)[("fedcad_study_stalled", "small", "1")] == 0.0


def scrape(port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_served_on_loopback_until_closed_and_read_anew_each_time(home: Consortium) -> None:
    with serve_metrics(home.folder, 0) as server:
        assert 'study="small"' not in scrape(server.port)
        add_study(home)
        text = scrape(server.port)
        families = {family.name for family in text_string_to_metric_families(text)}
        assert {"fedcad_study_round", "fedcad_site_rounds", "fedcad_study_sent_bytes"} <= families
        assert all(name.startswith("fedcad_") for name in families)
        port = server.port
        addresses = socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET, socket.SOCK_STREAM)
        outside = {str(found[4][0]) for found in addresses if not str(found[4][0]).startswith("127.")}
        for address in outside:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), timeout=2).close()
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_a_port_in_use_is_a_plain_error(home: Consortium) -> None:
    with serve_metrics(home.folder, 0) as server, pytest.raises(UnsupportedError, match="metrics_port"):
        serve_metrics(home.folder, server.port)


def test_a_folder_that_cannot_be_read_is_said_and_not_a_failed_scrape(home: Consortium) -> None:
    with serve_metrics(home.folder, 0) as server:
        (home.folder / "consortium.yaml").write_text("name: [")
        assert "fedcad_readable 0.0" in scrape(server.port)
