"""What the processes do together is tested in tests/end_to_end/test_flower_processes.py."""

import subprocess
import sys

import pytest
from consortium_processes import Supervised, make_consortium, make_site, wait_for

from fedcad.server.supervisor import LOCK_FILE, Coordinator, programs
from fedcad.shared.errors import ConfigError, UnsupportedError
from fedcad.shared.instance_lock import InstanceLock, stop_holder
from fedcad.shared.process_log import read_log


def test_no_program_has_a_secret_or_a_proxy_in_its_way(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    consortium = make_consortium(tmp_path / "c")
    found = programs(consortium, consortium.folder)
    assert [program.name for program in found] == ["superlink", "superexec"]
    for program in found:
        assert "127.0.0.1" in program.environment["NO_PROXY"].split(",")
        assert program.environment["FLWR_HOME"] == str(consortium.flower_home)
        assert program.command[-1] == str(consortium.folder)


def test_a_second_start_is_refused_and_nothing_is_touched(tmp_path):
    consortium = make_consortium(tmp_path / "c")
    said: list[str] = []
    with (
        InstanceLock(consortium.run / LOCK_FILE, "x"),
        pytest.raises(UnsupportedError, match=r"coordinator of demo is running already \(process \d+\)"),
    ):
        Coordinator(consortium.folder, said.append).run()
    assert said == []
    assert not consortium.database.exists()


def test_a_folder_that_is_no_consortium_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no consortium's folder"):
        Coordinator(tmp_path, print)


def test_the_supervisor_loads_no_torch():
    code = "import sys; import fedcad.server.supervisor; print('torch' in sys.modules, 'flwr' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_it_follows_enrolments_while_it_runs_and_stops_from_elsewhere(tmp_path):
    consortium = make_consortium(tmp_path / "c")
    supervised = Supervised("server", consortium.folder).start()

    def said(text: str) -> bool:
        return any(text in entry["text"] for entry in read_log(consortium.logs, "supervisor"))

    try:
        wait_for(lambda: supervised.state().get("processes"), "a start")
        make_site(tmp_path / "north", consortium)
        wait_for(lambda: said("the node key of north is accepted"), "the new site")
        (consortium.sites_folder / "south.json").write_text("{")
        wait_for(lambda: "south" in supervised.state()["problem"], "the damaged record")
        (consortium.sites_folder / "south.json").unlink()
        wait_for(lambda: supervised.state()["problem"] == "", "the end of the problem")
        assert stop_holder(consortium.run / LOCK_FILE) == supervised.process.pid
        assert supervised.process.wait(20.0) == 0
        assert said("stopped")
    finally:
        supervised.end()
