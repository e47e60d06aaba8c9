import json

import pytest
import tiny_study

from fedcad.server.outcome import read_outcome
from fedcad.server.settings import RunSettings
from fedcad.shared.contract import Contract
from fedcad.shared.messages import SiteInfo
from fedcad.simulations import studies
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.engines.simulated_client import make_simulated_app
from fedcad.simulations.runs import Run, SimulatedSite, numbered, open_channel


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    archives = tiny_study.build_archives(tmp_path_factory.mktemp("archives"), patients=24, sites=2)
    return [SimulatedSite(name, (str(archive.site_file),)) for name, archive in archives.items()]


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(make_simulated_app, 1) as pool:
        yield pool


@pytest.fixture
def run(tmp_path, sites):
    return Run("federated", tmp_path, studies.federated(tiny_study.make_study(), 1), sites)


def test_prepared_folder_says_everything(run, tmp_path):
    nodes = run.prepare()
    assert Contract.load(tmp_path / "contract").study_hash == run.contract.study_hash
    settings = RunSettings.load(tmp_path)
    assert settings.sites == ("site-1", "site-2")
    assert settings.virtual_clock
    assert [node["site"] for node in nodes] == ["site-1", "site-2"]
    assert nodes[0]["state"] != nodes[1]["state"]
    assert json.loads(nodes[0]["faults"]) == []
    assert all(isinstance(value, str | bool) for node in nodes for value in node.values())


def test_executed_run_ends_and_tells_the_observer(run, pool):
    events = []
    run.execute(pool, events.append)
    assert read_outcome(run.folder)["status"] == "completed"
    assert [event["round"] for event in events if event["event"] == "round"] == [1, 2]
    again = []
    run.execute(pool, again.append)
    assert again == []


def test_two_runs_share_no_state(run, pool, tmp_path, sites):
    other = Run("other", tmp_path / "other", run.contract, sites)
    run.execute(pool)
    other.execute(pool)
    assert read_outcome(run.folder) == read_outcome(other.folder)


def test_channel_outside_the_rounds(run, pool, sites):
    run.prepare()
    ready = open_channel(run.folder, sites, pool).ready()
    assert all(isinstance(info, SiteInfo) for info in ready.values())
    assert list(ready) == ["site-1", "site-2"]


def test_nodes_are_numbered_from_1():
    assert numbered([{"a": 1}, {"b": 2}]) == {1: {"a": 1}, 2: {"b": 2}}


def test_completed_run_is_not_run_again_and_keeps_no_checkpoint(run, pool):
    run.execute_once(pool)
    ended = read_outcome(run.folder)
    assert run.is_completed()
    assert not (run.folder / "checkpoints").exists()
    events = []
    run.execute_once(pool, events.append)
    assert (events, read_outcome(run.folder)) == ([], ended)


def test_killed_while_checkpoints_are_removed(run, pool):
    run.execute(pool)
    next((run.folder / "checkpoints").glob("*.safetensors")).unlink()
    run.execute_once(pool)
    assert not (run.folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "damage", ["model.safetensors", "outcome.json", "run.json", "contract/contract.json"]
)
def test_what_is_missing_or_of_another_study_is_run_anew(damage, run, pool):
    run.execute_once(pool)
    ended = read_outcome(run.folder)
    path = run.folder / damage
    assert path.exists(), sorted(run.folder.rglob("*"))
    path.unlink()
    assert not run.is_completed()
    run.execute_once(pool)
    assert read_outcome(run.folder) == ended
    others = (studies.federated(tiny_study.make_study(), 2), run.sites), (run.contract, run.sites[:1])
    for contract, sites in others:
        assert not Run("federated", run.folder, contract, sites).is_completed()


def test_stopped_run_keeps_its_checkpoint(run, pool):
    strict = studies.federated(tiny_study.make_study(participation={"quorum": 3}), 1)
    stopped = Run("federated", run.folder, strict, run.sites)
    stopped.execute_once(pool)
    assert read_outcome(run.folder)["status"] == "stopped"
    assert (run.folder / "checkpoints").exists()
    assert not stopped.is_completed()
