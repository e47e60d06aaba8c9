"""The run folder: claimed, refused, gone on with. Whole simulations are in ``tests/end_to_end``."""

import io
import json
import multiprocessing
import os
import signal

import pytest
import tiny_study
from rich.console import Console

from fedcad.shared.errors import CheckpointError, DataError
from fedcad.simulations import simulate
from fedcad.simulations.datasets.rejection import Rejection
from fedcad.simulations.hospitals import Hospitals
from fedcad.simulations.progress import Lines
from fedcad.simulations.simulate import (
    Places,
    _claim_data,
    _claimed,
    _list_left_out,
    _locked,
    _tell_refusals,
    _withdrawn_if_refused,
    simulate_file,
)

STUDY = tiny_study.make_study()


def claim(out, *, study=STUDY, resume=False, **changes):
    with _claimed(out, tiny_study.make_simulation(**changes), study, resume=resume):
        pass


def test_new_folder_holds_the_resolved_configuration(tmp_path):
    claim(tmp_path / "a" / "run")
    plain = json.loads((tmp_path / "a" / "run" / "configuration.json").read_text())
    assert plain["study"] == STUDY.model_dump(mode="json")
    assert plain["simulation"]["data"]["patients"] == 60


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        claim(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be made"):
        claim(tmp_path / "file" / "run")


def test_refused_data_leave_no_run_folder(tmp_path):
    config = tiny_study.make_simulation(external_sites=["nowhere"], seeds=[1, 2])
    places = Places(out=tmp_path / "run", archives=tmp_path / "archives")
    for _ in range(2):
        with pytest.raises(DataError, match="nowhere"):
            simulate_file(config, STUDY, places=places, resume=False, console=Console(file=io.StringIO()))
        assert not places.out.exists()


def test_refused_data_leave_an_old_run_as_it_is(tmp_path):
    claim(tmp_path)
    with pytest.raises(DataError), _withdrawn_if_refused([]):
        raise DataError
    assert (tmp_path / "configuration.json").exists()


def test_empty_folder_is_fine_and_full_ones_are_not(tmp_path):
    claim(tmp_path)
    with pytest.raises(CheckpointError, match="add --resume"):
        claim(tmp_path)
    claim(tmp_path, resume=True)
    (tmp_path / "configuration.json").unlink()
    (tmp_path / "other").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        claim(tmp_path, resume=True)


def test_folder_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "other").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def _claim_and_die(out):
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    claim(out)


def test_killed_while_the_first_file_is_written(tmp_path):
    """The folder then holds a lock and half a file; neither may refuse the run for ever."""
    process = multiprocessing.get_context("fork").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert left[0].endswith(".unfinished")
    claim(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "configuration.json"]


def test_second_process_does_not_touch_a_run_that_is_going(tmp_path):
    with _claimed(tmp_path, tiny_study.make_simulation(), STUDY, resume=False) as is_new:
        assert is_new
        before = (tmp_path / "configuration.json").read_bytes()
        with pytest.raises(CheckpointError, match="another process"):
            claim(tmp_path, resume=True, engine={"name": "flower", "workers": 7})
        assert (tmp_path / "configuration.json").read_bytes() == before


def test_report_is_written_while_the_run_is_held(tmp_path, monkeypatch):
    def write_report(folder):
        with pytest.raises(CheckpointError, match="another process"):
            claim(folder, resume=True)
        return original(folder)

    original = simulate.write_report
    monkeypatch.setattr(simulate, "write_report", write_report)
    config = tiny_study.make_simulation(
        data={"kind": "phantom", "patients": 24, "size": 64}, baselines={"alone": False, "pooled": False}
    )
    places = Places(out=tmp_path / "run", archives=tmp_path / "archives")
    simulate_file(config, STUDY, places=places, resume=False, console=Console(file=io.StringIO()))
    assert (tmp_path / "run" / "report.html").exists()


def test_any_change_but_the_engine_is_refused(tmp_path):
    claim(tmp_path)
    claim(tmp_path, resume=True, engine={"name": "flower", "workers": 7})
    with pytest.raises(CheckpointError, match="another configuration"):
        claim(tmp_path, resume=True, partition_seed=9)
    with pytest.raises(CheckpointError, match="another configuration"):
        claim(tmp_path, resume=True, study=tiny_study.make_study(rounds=9))


def test_interrupted_claim_of_several_seeds_can_be_resumed(tmp_path):
    """Kill -9 between the folders: the run's own file is written first."""
    claim(tmp_path, seeds=[1, 2, 3])
    (tmp_path / "seed-3" / "configuration.json").unlink()
    (tmp_path / "seed-3").rmdir()
    claim(tmp_path, seeds=[1, 2, 3], resume=True)
    assert (tmp_path / "seed-3" / "configuration.json").exists()


def test_run_that_is_still_going_is_left_alone(tmp_path):
    with _locked(tmp_path), pytest.raises(CheckpointError, match="another process"), _locked(tmp_path):
        pass
    with _locked(tmp_path):
        pass


def test_other_data_are_refused(tmp_path):
    first = tiny_study.build_archives(tmp_path / "archives", patients=6)
    second = tiny_study.build_archives(tmp_path / "archives", patients=7)
    _claim_data(tmp_path, Hospitals(first, (), ()))
    _claim_data(tmp_path, Hospitals(first, (), ()))
    with pytest.raises(CheckpointError, match="other data"):
        _claim_data(tmp_path, Hospitals(second, (), ()))


def test_all_that_was_left_out_is_in_one_table(tmp_path):
    assert not _list_left_out(tmp_path, [])
    assert not list(tmp_path.iterdir())
    assert _list_left_out(tmp_path, [Rejection("a/1.png", "damaged, or cut off"), Rejection("2", "twice")])
    assert (tmp_path / "left-out.csv").read_text() == 'file,reason\na/1.png,"damaged, or cut off"\n2,twice\n'


def test_what_sites_refused_is_told(capsys):
    sites = [
        {"name": "a", "rejects": {"other_view": 3, "label_not_in_study": 1}},
        {"name": "b", "rejects": {}},
    ]
    _tell_refusals({"sites": sites}, Lines())
    assert capsys.readouterr().out == "  a did not use: 1 label not in study, 3 other view\n"
