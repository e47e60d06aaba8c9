import json
import sqlite3

import pytest
import tiny_study
from flwr.app import Context, Message, RecordDict

from fedcad.client.workbench import freeze
from fedcad.shared.contract import Contract, Terms
from fedcad.shared.errors import ArchiveError, DataError, ProtocolError
from fedcad.shared.flower_internals.messages import enter_task, name_message
from fedcad.shared.flower_records import read_site_info
from fedcad.simulations.engines.simulated_client import (
    _KEPT_BENCHES,
    REFUSED,
    _bench,
    _benches,
    _studies,
    describe_error,
    make_simulated_app,
)
from fedcad.simulations.runs import SimulatedSite


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return tiny_study.build_archives(tmp_path_factory.mktemp("archives"), patients=24, sites=2)


@pytest.fixture
def contract(tmp_path):
    freeze(tiny_study.make_study()).save(tmp_path / "contract")
    return tmp_path / "contract"


@pytest.fixture
def loaded(monkeypatch):
    """Folders of the contracts that are really read from disk, in order."""
    folders, load = [], Contract.load
    monkeypatch.setattr(Contract, "load", lambda folder: folders.append(folder.name) or load(folder))
    return folders


def frozen(folder, **changes):
    freeze(tiny_study.make_study(**changes)).save(folder)
    return str(folder)


def ready(site, contract, tmp_path, **changes):
    enter_task()
    message = Message(RecordDict(), 1, "query.ready")
    name_message(message, "m1")
    config = site.node_config(contract, tmp_path / "state") | changes
    return make_simulated_app()(message, Context(1, 1, config, RecordDict(), {}))


def info(*arguments):
    return read_site_info(ready(*arguments).content)


def files(archives, *names):
    return tuple(str(archives[name].site_file) for name in names)


def test_one_site(archives, contract, tmp_path):
    site = info(SimulatedSite("site-1", files(archives, "site-1")), contract, tmp_path)
    assert site.site == "site-1"
    assert sum(site.cases.values()) == 12
    assert min(site.cases.values()) > 0


def test_external_site_is_tested_whole(archives, contract, tmp_path):
    external = SimulatedSite("site-1", files(archives, "site-1"), is_external=True)
    assert info(external, contract, tmp_path).cases == {"train": 0, "validation": 0, "test": 12}
    usual = info(SimulatedSite("site-1", files(archives, "site-1")), contract, tmp_path)
    assert usual.cases["train"] > 0


def test_pooled_site_has_the_sum_of_each_part(archives, contract, tmp_path):
    apart = [info(SimulatedSite(n, files(archives, n)), contract, tmp_path).cases for n in archives]
    pooled = info(SimulatedSite("pooled", files(archives, *archives)), contract, tmp_path)
    assert pooled.cases == {part: sum(each[part] for each in apart) for part in apart[0]}
    assert json.loads(pooled.summary) == {"sources": 2}


def test_a_contract_is_read_once_for_all_sites_and_questions(archives, contract, tmp_path, loaded):
    for name in (*archives, *archives):
        info(SimulatedSite(name, files(archives, name)), contract, tmp_path)
    assert loaded == ["contract"]


def test_runs_of_one_study_share_the_networks_and_no_worker_keeps_its_parameters(tmp_path, loaded):
    one, other = frozen(tmp_path / "one"), frozen(tmp_path / "other")
    bench = _bench(one)
    assert _bench(other) is bench
    assert _bench(one) is bench
    assert loaded == ["one", "other"]
    assert isinstance(bench.contract, Terms)


def test_networks_of_a_study_that_was_put_out_are_built_again(tmp_path, loaded):
    folders = [frozen(tmp_path / str(seed), seed=seed) for seed in range(_KEPT_BENCHES + 1)]
    first, *others = [_bench(folder) for folder in folders]
    assert len({bench.contract.study_hash for bench in (first, *others)}) == len(_benches) + 1
    again = _bench(folders[0])
    assert again is not first
    assert again.contract == first.contract
    assert loaded == [*(folder.rsplit("/", 1)[1] for folder in folders), "0"]
    assert _studies[folders[0]] == again.contract.study_hash


def test_missing_archive_is_named(contract, tmp_path):
    reply = ready(SimulatedSite("site-1", (str(tmp_path / "none" / "site.yaml"),)), contract, tmp_path)
    assert reply.has_error()
    assert "site.yaml" in reply.error.reason


def test_errors_are_told_whole():
    assert describe_error(ProtocolError("not mine")) == "not mine"
    assert describe_error(KeyError("x")) == "KeyError: 'x'"


def test_what_the_data_cause_is_told_apart_from_a_failing_disk():
    assert describe_error(ArchiveError("no file")) == REFUSED + "no file"
    full = DataError("the cache cannot be written")
    full.__cause__ = OSError(28, "No space left on device")
    assert describe_error(full) == "the cache cannot be written"
    busy = ArchiveError("the index cannot be used")
    busy.__cause__ = sqlite3.OperationalError("database is locked")
    assert describe_error(busy) == "the index cannot be used"
