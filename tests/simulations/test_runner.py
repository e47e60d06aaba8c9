import dataclasses
import re

import numpy as np
import pytest
import tiny_study

from fedcad.shared.errors import DataError, ProtocolError, UnsupportedError
from fedcad.simulations import runner
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.engines.simulated_client import make_simulated_app
from fedcad.simulations.hospitals import build_hospitals
from fedcad.simulations.runner import Clock, SimulationRun


class Silent:
    def __init__(self):
        self.said = []

    def update(self, part, done, total, detail=""):
        assert 0 <= done <= total

    def say(self, text):
        self.said.append(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(make_simulated_app, 2) as pool:
        yield pool


def run(folder, root, pool, *, study=None, change=lambda hospitals: hospitals, **changes):
    simulation = tiny_study.make_simulation(
        **{"data": {"kind": "phantom", "patients": 30, "size": 64}, **changes}
    )
    hospitals = change(build_hospitals(simulation, data=None, root=root))
    display = Silent()
    simulated = SimulationRun(
        simulation, study or tiny_study.make_study(), hospitals=hospitals, pool=pool, display=display
    )
    return simulated.run(folder, 1), display


def test_order_of_everything_is_that_of_names(tmp_path, root, pool):
    results, _ = run(tmp_path, root, pool)
    models = list(dict.fromkeys(each["model"] for each in results["evaluations"]))
    assert models == ["federated", "pooled", "alone-site-1", "alone-site-2", "alone-site-3", "ensemble"]
    for model in models:
        places = [each["on"] for each in results["evaluations"] if each["model"] == model]
        assert places == ["site-1", "site-2", "site-3", "union"]
    assert re.fullmatch("[0-9a-f]{64}", results["model_sha256"])
    assert results["time"]["total_s"] >= results["time"]["federated_s"]


def test_faults_are_in_the_federation_only(tmp_path, root, pool):
    faults = [{"kind": "drop", "site": "site-1", "rounds": [1, 2]}]
    alone = {"alone": True, "pooled": False}
    faulty, display = run(tmp_path / "1", root, pool, faults=faults, baselines=alone)
    healthy, _ = run(tmp_path / "2", root, pool, baselines=alone)

    def of(results, model):
        return [each for each in results["evaluations"] if each["model"] == model]

    assert of(faulty, "alone-site-1") == of(healthy, "alone-site-1")
    assert of(faulty, "federated") != of(healthy, "federated")
    assert len(display.said) == 2


def test_comparison_that_stopped_is_left_out_with_a_note(tmp_path, root, pool, monkeypatch):
    """For instance a site whose training diverges alone: the federated result must not be lost."""
    original = runner.outcome_of

    def stopped_alone(folder):
        outcome = original(folder)
        return outcome | {"status": "stopped", "reason": "NaN"} if folder.name == "alone-site-2" else outcome

    monkeypatch.setattr(runner, "outcome_of", stopped_alone)
    results, display = run(tmp_path, root, pool)
    models = {each["model"] for each in results["evaluations"]}
    assert "alone-site-2" not in models
    assert {"alone-site-1", "ensemble", "pooled"} <= models
    assert results["notes"] == ["the comparison alone-site-2 is left out: NaN"]
    assert "alone-site-2" in " ".join(display.said)
    alone = {each["on"] for each in results["comparisons"] if each["against"] == "alone"}
    assert alone == {"site-1", "site-3", "mean of sites"}


def test_site_that_fails_to_open_ends_the_simulation(tmp_path, root, pool):
    def spoil(hospitals):
        broken = dataclasses.replace(hospitals.archives["site-2"], site_file=tmp_path / "none" / "site.yaml")
        return dataclasses.replace(hospitals, archives=hospitals.archives | {"site-2": broken})

    with pytest.raises(ProtocolError, match="site-2 could not be opened"):
        run(tmp_path / "run", root, pool, change=spoil)


def test_comparisons_at_once_do_not_grow_with_sites(tmp_path, root, pool, monkeypatch):
    at_work, most = set(), []

    class Watched(runner.Run):
        def execute_once(self, *args):
            at_work.add(self.name)
            most.append(len(at_work))
            super().execute_once(*args)
            at_work.discard(self.name)

    monkeypatch.setattr(runner, "Run", Watched)
    results, _ = run(tmp_path, root, pool, partition={"kind": "iid", "sites": 6}, leave_one_site_out=True)
    assert max(most) <= 2 * pool.workers < len(most)
    assert {f"without-site-{number}" for number in range(1, 7)} <= {
        each["model"] for each in results["evaluations"]
    }


def test_finished_comparisons_keep_no_checkpoint_and_are_not_run_again(tmp_path, root, pool):
    def of(results):
        return [results[key] for key in ("model_sha256", "evaluations", "comparisons", "case_passes")]

    first, _ = run(tmp_path, root, pool)
    folders = sorted((tmp_path / "baselines").iterdir())
    assert [folder.name for folder in folders] == ["alone-site-1", "alone-site-2", "alone-site-3", "pooled"]
    assert not any((folder / "checkpoints").exists() for folder in folders)
    assert list((tmp_path / "checkpoints").glob("*.safetensors"))
    models = [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders]
    again, _ = run(tmp_path, root, pool)
    assert of(again) == of(first)
    assert [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders] == models


def test_case_passes_are_in_the_results(tmp_path, root, pool):
    steps = {**tiny_study.study_plain()["training"], "local_steps": 3}
    del steps["local_epochs"]
    results, _ = run(tmp_path, root, pool, study=tiny_study.make_study(training=steps))
    cases = [site["cases"]["train"] for site in results["sites"]]
    # Batches of 8, three steps: a site with fewer than 24 cases goes round, its last batch being short.
    drawn = sum(sum(([*[8] * (n // 8), *[n % 8] * (n % 8 > 0)] * 3)[:3]) for n in cases)
    passes = results["case_passes"]
    assert passes["federated"] == pytest.approx(2 * drawn / sum(cases))
    assert passes["pooled"] == pytest.approx(passes["federated"], abs=2 * 4 / sum(cases))


def test_no_training_site_is_an_error(tmp_path, root, pool):
    with pytest.raises(DataError, match="no site has training cases"):
        run(tmp_path, root, pool, external_sites=["site-1", "site-2", "site-3"])


def test_error_in_a_comparison_ends_the_simulation(tmp_path, root):
    class Full(Silent):
        def update(self, part, done, total, detail=""):
            if part == "comparisons, rounds" and done:
                raise OSError("disk full")

    simulation = tiny_study.make_simulation(data={"kind": "phantom", "patients": 30, "size": 64})
    hospitals = build_hospitals(simulation, data=None, root=root)
    with WorkerPool(make_simulated_app, 1) as own:
        simulated = SimulationRun(
            simulation, tiny_study.make_study(rounds=50), hospitals=hospitals, pool=own, display=Full()
        )
        with pytest.raises(OSError, match="disk full"):
            simulated.run(tmp_path, 1)
        assert own.is_killed


def test_clock_adds_up(monkeypatch):
    ticks = iter([10.0, 11.0, 20.0, 22.5, 30.0])
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(ticks))
    clock = Clock(started=10.0)
    for _ in range(2):
        with clock.time("part_s"):
            pass
    assert clock.total() == {"part_s": 3.5, "total_s": 20.0}


def test_selected_parameters_are_those_in_the_file(tmp_path, root, pool):
    from fedcad.server.outcome import read_outcome
    from fedcad.shared.canonical import hash_of_vectors
    from fedcad.shared.contract import Contract
    from fedcad.simulations.runs import Run

    run(tmp_path, root, pool, baselines={"alone": False, "pooled": False})
    vector = runner._selected(Run("federated", tmp_path, Contract.load(tmp_path / "contract"), []))
    assert vector.dtype == np.float32
    assert hash_of_vectors({"model": vector}) == read_outcome(tmp_path)["model_sha256"]


def test_the_deployment_engine_refuses_faults_that_it_could_only_ignore(tmp_path):
    simulation = tiny_study.make_simulation(
        engine={"name": "deployment"}, faults=[{"site": "site-1", "rounds": [1], "kind": "drop"}]
    )
    with pytest.raises(UnsupportedError, match="faults are scheduled"):
        tiny_study.simulate(tmp_path / "run", archives=tmp_path / "archives", simulation=simulation)
