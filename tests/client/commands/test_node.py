import json
import os

import pytest
import typer
from consortium_processes import make_consortium, make_site

from fedcad.client.commands.node import describe, status, stop
from fedcad.client.supernode import CONTACT_FILE
from fedcad.client.supervisor import LOCK_FILE, STATE_FILE
from fedcad.shared.instance_lock import InstanceLock


@pytest.fixture
def hospital(tmp_path):
    found = make_site(tmp_path / "north", make_consortium(tmp_path / "c"))
    found.run.mkdir(exist_ok=True)
    return found


@pytest.fixture
def running(hospital):
    state = {
        "version": "0.1.0",
        "coordinator": "fedcad.example:8443",
        "problem": "",
        "processes": {"supernode": {"restarts": 2, "last_exit": "was killed by SIGKILL after 9 s"}},
    }
    (hospital.run / STATE_FILE).write_text(json.dumps(state))
    with InstanceLock(hospital.run / LOCK_FILE, "x"):
        yield hospital


def contact(hospital, state: str, reason: str = "", at: float = 1000.0) -> None:
    path = hospital.run / CONTACT_FILE
    path.write_text(json.dumps({"state": state, "reason": reason}))
    os.utime(path, (at, at))


def test_a_node_that_does_not_run_is_said_so_with_the_remedy(hospital, capsys):
    with pytest.raises(typer.Exit) as ended:
        status(hospital.folder)
    assert ended.value.exit_code == 1
    assert "not running. Start it: fedcad client start" in capsys.readouterr().out


def test_a_connected_node(running):
    contact(running, "connected")
    lines, is_well = describe(running, now=1003.0)
    assert is_well
    assert lines == [
        f"The node runs (process {os.getpid()}, FedCAD 0.1.0).",
        "Coordinator fedcad.example:8443: connected",
        "Last contact 3 s ago.",
        "supernode: restarted 2 ×; it was killed by SIGKILL after 9 s.",
    ]


def test_contact_long_ago_is_no_connection(running):
    contact(running, "connected")
    lines, is_well = describe(running, now=1121.0)
    assert not is_well
    assert "Last contact 121 s ago." in lines


def test_why_it_is_not_connected_is_told(running):
    contact(running, "not connected", "the web proxy refuses the connection")
    lines, is_well = describe(running, now=1001.0)
    assert not is_well
    assert "not connected. the web proxy refuses the connection" in lines[1]


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_damaged_files_do_not_stop_the_answer(running, content):
    (running.run / STATE_FILE).write_text(content)
    (running.run / CONTACT_FILE).write_text(content)
    lines, is_well = describe(running)
    assert not is_well
    assert "No contact yet." in lines[1]


def test_stopping_what_does_not_run_says_so(hospital, capsys):
    stop(hospital.folder)
    assert capsys.readouterr().out == "it was not running\n"
