import json
import os
import subprocess
import sys

import httpx
import pytest
from consortium_processes import make_consortium, make_site

from fedcad.client.supernode import (
    ACTIVE_SECONDS,
    CONTACT_FILE,
    IDLE_SECONDS,
    WORKER_SOCKET_KEY,
    Contact,
    explain_trouble,
    read_contact,
)


class Setting:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.now = 0.0
        self.contact = self.again()

    def again(self, machine: str = "this machine") -> Contact:
        return Contact(self.folder, machine, "a" * 64, lambda: self.now)


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


def test_it_asks_often_during_a_study_and_seldom_otherwise(setting):
    assert setting.contact.idle_seconds() == IDLE_SECONDS
    setting.contact.contact(has_message=True)
    setting.now = 599.0
    setting.contact.contact(has_message=False)
    assert setting.contact.idle_seconds() == ACTIVE_SECONDS
    setting.now = 601.0
    assert setting.contact.idle_seconds() == IDLE_SECONDS


def test_an_idle_node_writes_no_data_and_still_says_when_it_had_contact(setting):
    setting.contact.connected(7)
    path = setting.folder / CONTACT_FILE
    before = path.stat().st_ino
    os.utime(path, (0, 0))
    setting.contact.contact(has_message=False)
    assert path.stat().st_ino == before
    assert read_contact(setting.folder)["last_contact"] > 1e9
    assert read_contact(setting.folder)["state"] == "connected"


def test_what_is_wrong_is_written_in_words_and_goes_away(setting):
    setting.contact.connected(7)
    setting.contact.trouble(None, 401, "/flwr.proto.Fleet/PullMessages")
    assert "clock" in read_contact(setting.folder)["reason"]
    assert read_contact(setting.folder)["state"] == "not connected"
    setting.contact.contact(has_message=False)
    assert read_contact(setting.folder) | {"last_contact": 0} == {
        "state": "connected",
        "reason": "",
        "machine": "this machine",
        "node_id": 7,
        "last_contact": 0,
    }


def test_a_refused_farewell_or_a_single_refused_message_is_no_trouble(setting):
    setting.contact.connected(7)
    setting.contact.trouble(None, 412, "/flwr.proto.Fleet/DeactivateNode")
    setting.contact.trouble(None, 409, "/flwr.proto.Fleet/PushObject")
    assert read_contact(setting.folder)["state"] == "connected"


def test_the_earlier_session_is_known_on_the_same_machine_only(setting):
    setting.contact.connected(7)
    assert setting.again().previous_node_id == 7
    assert setting.again("another machine").previous_node_id is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"machine": "this machine", "node_id": "7"}', b"\xff"]
)
def test_a_damaged_contact_file_is_as_none(setting, content):
    (setting.folder / CONTACT_FILE).write_bytes(content)
    assert setting.again().previous_node_id is None


def test_a_refusal_names_the_app_both_bundles_and_is_logged(setting, capsys):
    reason = setting.contact.refused("evil/app 6.6.6", "b" * 64)
    assert "refused evil/app 6.6.6, bundle bbbbbbbbbbbbbbbb" in reason
    assert "only the bundle aaaaaaaaaaaaaaaa of FedCAD" in reason
    assert capsys.readouterr().out == f"WARNING {reason}\n"


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed"),
            0,
            "proxy inspects",
        ),
        (httpx.ProxyError("407 Proxy Authentication Required"), 0, "web proxy"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), 0, "DNS"),
        (httpx.ConnectError("[Errno 111] Connection refused"), 0, "nothing listens"),
        (httpx.ConnectTimeout("timed out"), 0, "does not answer in time"),
        (httpx.RemoteProtocolError("Server disconnected"), 0, "connection broke"),
        (None, 401, "identity"),
        (None, 412, "revoked"),
        (None, 404, "not a FedCAD coordinator"),
        (None, 507, "HTTP status 507"),
    ],
)
def test_every_trouble_has_words_and_a_remedy(error, status, word):
    assert word in explain_trouble(error, status)


def test_the_key_of_the_workers_socket_is_the_one_that_the_app_reads():
    from fedcad.client.app import SOCKET_KEY

    assert WORKER_SOCKET_KEY == SOCKET_KEY


def test_a_folder_that_has_not_joined_is_refused_in_words(tmp_path):
    (tmp_path / "site.yaml").write_text("name: north\narchive: a\nlabels: l.csv\nstate: s\n")
    command = [sys.executable, "-m", "fedcad.client.supernode", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "has not joined" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


def test_a_node_key_that_others_can_read_is_refused(tmp_path):
    hospital = make_site(tmp_path / "north", make_consortium(tmp_path / "c"))
    hospital.run.mkdir(mode=0o700)
    hospital.node_key_file.chmod(0o644)
    command = [sys.executable, "-m", "fedcad.client.supernode", str(hospital.folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "can be read by other accounts" in run.stdout


def test_the_node_never_imports_torch_or_reads_images():
    code = (
        "import sys; import fedcad.client.supernode; from fedcad.shared.flower_internals import node; "
        "print([name for name in ('torch', 'pydicom', 'monai') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_file_is_json_without_the_sites_secrets(setting):
    setting.contact.connected(7)
    assert set(json.loads((setting.folder / CONTACT_FILE).read_bytes())) == {
        "state",
        "reason",
        "machine",
        "node_id",
    }
