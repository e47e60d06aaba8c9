import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_study

from fedcad.shared import cli
from fedcad.simulations import simulate as simulate_module
from fedcad.simulations.report import compare as compare_module


@pytest.fixture
def called(monkeypatch):
    """Record what the command asks for, without running it."""
    calls = []
    monkeypatch.setattr(
        simulate_module,
        "simulate_file",
        lambda simulation, study, **more: calls.append((simulation, study, more)),
    )
    return calls


@pytest.fixture
def path(tmp_path):
    return tiny_study.write_files(
        tmp_path, study=tiny_study.study_plain(), simulation=tiny_study.simulation_plain()
    )


@pytest.fixture
def path_with_data(tmp_path):
    simulation = tiny_study.simulation_plain(data={"kind": "image-folder"})
    return tiny_study.write_files(tmp_path, study=tiny_study.study_plain(), simulation=simulation)


def test_options_reach_the_simulation(called, path_with_data, tmp_path):
    options = ["--engine", "flower", "--out", str(tmp_path / "o"), "--archives", str(tmp_path / "a")]
    assert cli.run(["simulate", str(path_with_data), *options, "--data", str(tmp_path), "--resume"]) == 0
    [(simulation, study, more)] = called
    assert simulation.engine.name == "flower"
    assert simulation.engine.workers == 2
    assert study.name == "tiny"
    assert more["resume"] is True
    places = more["places"]
    assert (places.out, places.archives, places.data) == (tmp_path / "o", tmp_path / "a", tmp_path)


def test_the_simulation_is_imported_without_looking_for_garbage(path, tmp_path):
    code = """
import gc, sys
from fedcad.shared import cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "fedcad.simulations.simulate":
            sys.exit(f"collector on: {gc.isenabled()}")

sys.meta_path.insert(0, Finder())
cli.run(["simulate", sys.argv[1], "--out", sys.argv[2]])
"""
    words = [sys.executable, "-c", code, str(path), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "collector on: False"


def test_defaults(called, path, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.run(["simulate", str(path)]) == 0
    [(simulation, _, more)] = called
    assert simulation.engine.name == "in-process"
    assert more["places"].archives == tmp_path / "cache" / "fedcad" / "archives"
    assert more["places"].out.parts[:2] == ("runs", "tiny")
    assert more["resume"] is False


def test_refusals_are_2_and_in_words(path, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    arguments = ["simulate", str(path), "--out", str(tmp_path / "run")]
    assert cli.run(arguments) == 2
    assert "not empty" in capfd.readouterr().err
    assert cli.run(["simulate", str(tmp_path / "none.yaml")]) == 2
    assert cli.run(["simulate", str(path), "--engine", "abacus"]) == 2
    assert cli.run(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 2


def test_wrong_data_are_refused_before_anything_is_made(called, path_with_data, tmp_path, capfd):
    out = str(tmp_path / "run")
    assert cli.run(["simulate", str(path_with_data), "--out", out]) == 2
    assert "add --data FOLDER" in capfd.readouterr().err
    assert cli.run(["simulate", str(path_with_data), "--out", out, "--data", str(tmp_path / "no")]) == 2
    assert "no such folder" in capfd.readouterr().err
    phantom = tiny_study.write_files(
        tmp_path, study=tiny_study.study_plain(), simulation=tiny_study.simulation_plain()
    )
    assert cli.run(["simulate", str(phantom), "--out", out, "--data", str(tmp_path)]) == 2
    assert "leave out --data" in capfd.readouterr().err
    assert not called
    assert not (tmp_path / "run").exists()


def test_resume_needs_to_know_which_run(called, path, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["simulate", str(path), "--resume"]) == 2
    assert "there is none in runs/tiny" in capfd.readouterr().err
    for stamp in ("20250101-000000", "20260101-000000", "20270101-000000"):
        (tmp_path / "runs" / "tiny" / stamp).mkdir(parents=True)
    for stamp in ("20250101-000000", "20260101-000000"):
        (tmp_path / "runs" / "tiny" / stamp / "configuration.json").touch()
    assert cli.run(["simulate", str(path), "--resume"]) == 2
    assert "--out runs/tiny/20260101-000000" in capfd.readouterr().err
    assert not called


def test_ctrl_c_tells_how_to_go_on(path_with_data, tmp_path, monkeypatch, capfd):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_module, "simulate_file", interrupted)
    monkeypatch.setattr(sys, "argv", [".venv/bin/fedcad"])
    out = tmp_path / "a run"
    assert cli.run(["simulate", str(path_with_data), "--out", str(out), "--data", str(tmp_path)]) == 130
    shown = capfd.readouterr()
    assert f"Run folder: {out}" in shown.out
    expected = (
        f"To go on: .venv/bin/fedcad simulate {path_with_data} --data {tmp_path} --out '{out}' --resume"
    )
    assert shown.err == f"{expected}\ninterrupted\n"


def test_compare_says_what_it_wrote_and_refuses_a_file(tmp_path, monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(compare_module, "compare_runs", lambda *arguments: asked.append(arguments))
    assert cli.run(["compare", "a", "b", "--out", str(tmp_path)]) == 0
    [(runs, out, _)] = asked
    assert ([str(run) for run in runs], out) == (["a", "b"], tmp_path)
    assert capfd.readouterr().out == f"Written: {tmp_path}/compare.html, {tmp_path}/compare.png\n"
    (tmp_path / "file").touch()
    assert cli.run(["compare", "a", "b", "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capfd.readouterr().err
    assert len(asked) == 1


def processes_of(session):
    from pathlib import Path

    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        if folder.name.isdigit() and int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "engine"),
    [
        (b"reading the data set", "in-process"),
        (b"federated: 0", "in-process"),
        (b"comparisons, rounds: 0", "in-process"),
        (b"federated: ", "flower"),
    ],
)
def test_ctrl_c_leaves_nothing_behind(moment, engine, tmp_path):
    path = tiny_study.write_files(
        tmp_path,
        study=tiny_study.study_plain(rounds=2000 if b"federated" in moment else 40),
        simulation=tiny_study.simulation_plain(),
    )
    command = [sys.executable, "-m", "fedcad.shared.cli", "simulate", str(path)]
    command += ["--out", str(tmp_path / "run"), "--archives", str(tmp_path / "archives"), "--engine", engine]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for line in process.stdout:
        if line.startswith(moment) and not (engine == "flower" and line.startswith(b"federated: 0")):
            break
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"Traceback" not in error
    while processes_of(process.pid):
        assert time.monotonic() - started < 10, "processes were left behind"
        time.sleep(0.05)
    assert not (tmp_path / "run" / "results.json").exists()
