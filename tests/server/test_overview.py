"""A consortium at one moment: its coordinator, certificates, studies; damage becomes a problem."""

import json
from pathlib import Path

import pytest
from study_folders import NOW, add_study, make_consortium, run_rounds, say_running

from fedcad.server.consortium import Consortium
from fedcad.server.overview import coordinator_of, overview_of
from fedcad.server.study_state import State
from fedcad.shared.errors import FedCADError
from fedcad.shared.instance_lock import InstanceLock

DAY = 86400.0


@pytest.fixture
def home(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def test_a_coordinator_that_is_not_running(home: Consortium) -> None:
    say_running(home)  # left by kill -9: the lock is what counts
    add_study(home)
    overview = overview_of(home.folder, NOW)
    assert not overview.coordinator.is_running
    assert [study.state for study in overview.studies] == [State.INTERRUPTED]
    assert (overview.name, overview.address) == ("chest-network", "fedcad.example.org:8443")
    assert overview.problems == ()


def test_a_running_coordinator_and_its_troubles(home: Consortium) -> None:
    add_study(home)
    with InstanceLock(home.run / "supervisor.lock", "it"):
        say_running(home, runs={"small/v0001": {"run_id": None, "failures": 2, "reason": "exit 1"}})
        overview = overview_of(home.folder, NOW)
    coordinator = overview.coordinator
    assert (coordinator.is_running, coordinator.pid, coordinator.started) == (True, 4321, NOW - 7300.0)
    assert coordinator.processes == {"superlink": "running", "superexec": "running"}
    assert overview.studies[0].state is State.STARTING
    assert "exit 1" in overview.studies[0].reason


def test_a_process_that_does_not_run_says_why(home: Consortium) -> None:
    waits = {"state": "waiting to start", "last_error": "port in use"}
    with InstanceLock(home.run / "supervisor.lock", "it"):
        say_running(home, processes={"superlink": waits, "superexec": waits | {"state": "running"}})
        coordinator = overview_of(home.folder, NOW).coordinator
    assert coordinator.processes == {
        "superlink": "waiting to start (port in use)",
        "superexec": "running",
    }


def test_only_the_newest_version_of_a_study_counts(home: Consortium) -> None:
    add_study(home)
    (home.studies / "small" / "v0002").mkdir()
    assert [study.version for study in overview_of(home.folder, NOW).studies] == [2]


def test_certificates_and_contracts_are_warned_of_in_time(home: Consortium) -> None:
    folder = add_study(home, days=180)
    days = 730 - 3600 / DAY  # both were issued an hour before now
    before = overview_of(home.folder, NOW + (days - 31) * DAY)
    assert not [text for text in before.warnings(NOW + (days - 31) * DAY) if "certificate" in text]
    soon = overview_of(home.folder, NOW).warnings(NOW + (days - 29) * DAY)
    assert "the certificate of the coordinator's server expires in 29 days: fedcad server renew" in soon[0]
    late = overview_of(home.folder, NOW).warnings(NOW + (days + 3) * DAY)
    assert "EXPIRED 3 days ago" in late[0]
    contract = overview_of(home.folder, NOW).warnings(NOW + 170 * DAY)
    assert contract == ["the contract of small v1 ends in 10 days; sites refuse it then: fedcad server amend"]
    run_rounds(folder)
    assert overview_of(home.folder, NOW).warnings(NOW + 170 * DAY) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"pid": "x", "started": 1}', b"\xff"])
def test_a_damaged_state_of_the_coordinator_is_a_problem(home: Consortium, content: bytes) -> None:
    with InstanceLock(home.run / "supervisor.lock", "it"):
        (home.run / "supervisor.json").write_bytes(content)
        overview = overview_of(home.folder, NOW)
        alone = coordinator_of(home)
    assert overview.coordinator.is_running
    assert "supervisor.json" in overview.warnings(NOW)[0]
    assert alone.is_running
    assert "supervisor.json" in alone.problem


@pytest.mark.parametrize("file", ["ca.crt", "server.crt", "signing.pub"])
def test_damaged_keys_are_problems(home: Consortium, file: str) -> None:
    (home.folder / file).write_text("nothing")
    overview = overview_of(home.folder, NOW)
    if file != "signing.pub":
        assert any(file in problem for problem in overview.problems)
    json.dumps(overview.to_plain())


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedCADError, match="no consortium's folder"):
        overview_of(tmp_path, NOW)
