import subprocess
import sys

from consortium_processes import Supervised, make_consortium, wait_for

from fedcad.server.commands.run import stop
from fedcad.server.study_folder import StudyFolder, Wanted


def test_stopping_what_does_not_run_says_so(tmp_path, capsys):
    consortium = make_consortium(tmp_path / "c")
    stop(consortium.folder)
    assert capsys.readouterr().out == "it was not running\n"


def test_a_coordinator_is_stopped_from_another_terminal(tmp_path, capsys):
    consortium = make_consortium(tmp_path / "c")
    supervised = Supervised("server", consortium.folder).start()
    try:
        wait_for(lambda: supervised.state().get("processes"), "a start")
        stop(consortium.folder)
        assert capsys.readouterr().out == f"stopped (process {supervised.process.pid})\n"
        assert supervised.process.wait(20.0) == 0
    finally:
        supervised.end()


def test_one_study_is_stopped_and_the_coordinator_left_alone(tmp_path, capsys):
    consortium = make_consortium(tmp_path / "c")
    folder = StudyFolder(consortium.studies / "chest" / "v0001")
    folder.path.mkdir(parents=True)
    stop(consortium.folder, "chest", "enough")
    assert folder.wish().wanted is Wanted.STOPPED
    assert folder.wish().reason == "enough"
    assert "chest v1 stops" in capsys.readouterr().out


def test_the_commands_load_nothing_before_they_run():
    code = (
        "import sys; import fedcad.server.commands.run; print('flwr' in sys.modules, 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
