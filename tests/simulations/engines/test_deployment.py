"""An emulated consortium is made once and found again; the whole run is in tests/end_to_end."""

from pathlib import Path

import pytest
import tiny_study
import yaml

from fedcad.client.hospital import Hospital
from fedcad.client.workbench import freeze
from fedcad.server.consortium import Consortium
from fedcad.server.study_folder import Wanted
from fedcad.simulations.engines.deployment import Deployment


def make_deployment(root: Path) -> Deployment:
    archives = tiny_study.build_archives(root / "archives", patients=24)
    files = {name: archive.site_file for name, archive in archives.items()}
    return Deployment(root / "deployment", freeze(tiny_study.make_study()), files)


def test_every_site_joins_with_its_archive_and_the_study_is_wanted(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path)
    deployment.make()
    consortium = Consortium.load(tmp_path / "deployment" / "coordinator")
    assert consortium.config.listen.startswith("127.0.0.1:")
    sites = consortium.sites()
    assert sites
    for name, site in sites.items():
        hospital = Hospital.load(tmp_path / "deployment" / "sites" / name)
        hospital.check_enrolment()
        assert site.signing_key == hospital.signing_key().public
        assert Path(hospital.site.archive).is_dir()
        assert Path(hospital.site.labels).is_file()
        assert yaml.safe_load(hospital.site_file.read_text())["state"] == "state"
    assert deployment.study.needs_a_run()


def test_making_it_again_keeps_keys_and_lets_the_study_go_on(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path)
    deployment.make()
    consortium = tmp_path / "deployment" / "coordinator"
    before = (consortium / "ca.crt").read_bytes()
    deployment.study.want(Wanted.PAUSED)
    make_deployment(tmp_path).make()
    assert (consortium / "ca.crt").read_bytes() == before
    assert deployment.study.needs_a_run()


@pytest.mark.parametrize("rounds", [3])
def test_another_study_is_made_anew(tmp_path: Path, rounds: int) -> None:
    deployment = make_deployment(tmp_path)
    deployment.make()
    before = deployment.study.contract().study_hash
    other = freeze(tiny_study.make_study(rounds=rounds))
    Deployment(tmp_path / "deployment", other, deployment._site_files).make()
    assert deployment.study.contract().study_hash == other.study_hash != before
