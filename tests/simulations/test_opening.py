"""Sites are opened with the real worker processes on real archives."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import tiny_study
from engine_apps import make_killed_app

from fedcad.shared.errors import CheckpointError, ProtocolError
from fedcad.simulations import studies
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.engines.simulated_client import REFUSED, make_simulated_app
from fedcad.simulations.opening import open_sites
from fedcad.simulations.runs import CONTRACT, SimulatedSite


class Silent:
    def update(self, part, done, total, detail=""):
        pass


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    root = tmp_path_factory.mktemp("archives")
    archives = tiny_study.build_archives(root, patients=24, sites=2)
    return [SimulatedSite(name, (str(archive.site_file),)) for name, archive in archives.items()]


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(make_simulated_app, 2) as pool:
        yield pool


def open_in(folder, sites, pool):
    studies.federated(tiny_study.make_study(), 1).save(folder / CONTRACT)
    return open_sites(folder, sites, pool=pool, display=Silent())


def refused(site, folder):
    """The same site over an archive whose label table cannot be used."""
    original = Path(site.site_files[0])
    folder.mkdir()
    (folder / "labels.csv").write_bytes(b"\xff\xfe not UTF-8")
    shutil.copy(original, folder)
    shutil.copytree(original.parent / "dicom", folder / "dicom")
    return dataclasses.replace(site, site_files=(str(folder / "site.yaml"),))


def test_sites_and_cases_are_remembered_and_the_same_is_accepted(sites, pool, tmp_path):
    first = open_in(tmp_path, sites, pool)
    plain = json.loads((tmp_path / "sites.json").read_text())
    assert plain["sites"] == {name: dict(info.cases) for name, info in first.infos.items()}
    assert plain["left_out"] == {}
    assert open_in(tmp_path, sites, pool) == first


def test_refused_site_is_left_out_with_its_reason(sites, pool, tmp_path):
    bad = refused(sites[1], tmp_path / "bad")
    opened = open_in(tmp_path / "run", [sites[0], bad], pool)
    assert list(opened.infos) == [sites[0].name]
    [(name, reason)] = opened.refused
    assert name == bad.name
    assert "not UTF-8" in reason
    assert not reason.startswith(REFUSED)
    assert json.loads((tmp_path / "run" / "sites.json").read_text())["left_out"] == {name: reason}
    with pytest.raises(CheckpointError, match=f"{name} was left out when .* now had"):
        open_in(tmp_path / "run", sites, pool)


def test_site_that_is_gone_after_a_resume_is_named(sites, pool, tmp_path):
    open_in(tmp_path / "run", sites, pool)
    with pytest.raises(CheckpointError, match=rf"{sites[1].name} had .* now was left out \(.*not UTF-8"):
        open_in(tmp_path / "run", [sites[0], refused(sites[1], tmp_path / "bad")], pool)
    with pytest.raises(CheckpointError, match=sites[1].name):
        open_in(tmp_path / "run", sites[:1], pool)


def test_other_case_counts_are_refused(sites, pool, tmp_path):
    open_in(tmp_path, sites, pool)
    path = tmp_path / "sites.json"
    plain = json.loads(path.read_text())
    plain["sites"][sites[0].name]["train"] += 1
    path.write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=sites[0].name):
        open_in(tmp_path, sites, pool)


@pytest.mark.parametrize("content", ["", "[]", '{"sites": 1}'])
def test_damaged_memory_is_refused(content, sites, pool, tmp_path):
    (tmp_path / "sites.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"sites\.json cannot be read"):
        open_in(tmp_path, sites, pool)


def test_site_that_fails_otherwise_stops_everything(sites, pool, tmp_path):
    gone = dataclasses.replace(sites[1], site_files=(str(tmp_path / "none" / "site.yaml"),))
    with pytest.raises(ProtocolError, match=rf"{gone.name} could not be opened .*site\.yaml"):
        open_in(tmp_path, [sites[0], gone], pool)
    assert not (tmp_path / "sites.json").exists()


def test_killed_worker_stops_everything(sites, tmp_path):
    with (
        WorkerPool(make_killed_app, 1) as dying,
        pytest.raises(ProtocolError, match=r"died \(exit code -9\)"),
    ):
        open_in(tmp_path, sites[:1], dying)
    assert not (tmp_path / "sites.json").exists()
