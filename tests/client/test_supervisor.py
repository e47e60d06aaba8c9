"""What the processes do together is tested in tests/end_to_end/test_flower_processes.py."""

import subprocess
import sys

import pytest
from consortium_processes import make_consortium, make_site

from fedcad.client.supervisor import LOCK_FILE, Node, program
from fedcad.client.worker_keeper import worker_command
from fedcad.shared.errors import ConfigError, IdentityError, UnsupportedError
from fedcad.shared.instance_lock import InstanceLock


@pytest.fixture
def hospital(tmp_path):
    return make_site(tmp_path / "north", make_consortium(tmp_path / "c"))


def test_a_second_start_is_refused_and_names_the_first(hospital):
    hospital.run.mkdir(exist_ok=True)
    with (
        InstanceLock(hospital.run / LOCK_FILE, "x"),
        pytest.raises(UnsupportedError, match=r"the node of north is running already \(process \d+\)"),
    ):
        Node(hospital.folder, print).run()


def test_nobody_else_can_read_what_the_node_writes(hospital):
    hospital.run.mkdir(mode=0o755, exist_ok=True)
    Node(hospital.folder, print)
    for folder in (hospital.run, hospital.logs, hospital.flower_home):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_proxy_of_the_site_file_reaches_the_node_and_spares_loopback(hospital, monkeypatch):
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    with hospital.site_file.open("a") as stream:
        stream.write("proxy: http://proxy.hospital.example:3128\n")
    changed = type(hospital).load(hospital.folder)
    environment = program(changed, changed.folder).environment
    assert environment["HTTPS_PROXY"] == "http://proxy.hospital.example:3128"
    assert "127.0.0.1" in environment["NO_PROXY"].split(",")


def test_folders_that_cannot_be_a_node_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no hospital's folder"):
        Node(tmp_path, print)
    (tmp_path / "site.yaml").write_text("name: north\narchive: a\nlabels: l.csv\nstate: s\n")
    with pytest.raises(IdentityError, match="has not joined"):
        Node(tmp_path, print)
    assert not (tmp_path / "run").exists()


def test_the_supervisor_loads_neither_torch_nor_flwr():
    code = "import sys; import fedcad.client.supervisor; print('torch' in sys.modules, 'flwr' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_no_code_is_loaded_from_where_the_node_was_started(hospital, tmp_path, monkeypatch):
    """The folder may be one into which others write, such as an import folder of the PACS."""
    for name in ("json", "torch", "httpx", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code from the working folder ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node = program(hospital, hospital.folder)
    assert "PYTHONPATH" not in node.environment
    for command in (node.command, worker_command(hospital.folder)):
        code = "import json, sys; print(sys.path)"
        told = [*command[: command.index("-m")], "-c", code]
        found = subprocess.run(told, env=node.environment, capture_output=True, text=True, check=True)
        assert str(tmp_path) not in found.stdout.replace(str(hospital.folder), "")
