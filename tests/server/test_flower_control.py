"""With a real SuperLink on loopback; one for all tests of this file."""

import os
import subprocess
import sys

import pytest
from consortium_processes import free_port, make_consortium, make_site, wait_for

from fedcad.server.flower_control import FlowerControl
from fedcad.shared.errors import ProtocolError
from fedcad.shared.flower_environment import flower_environment


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    return make_consortium(tmp_path_factory.mktemp("control") / "consortium")


@pytest.fixture(scope="module")
def control(consortium):
    environment = flower_environment(consortium.flower_home, os.environ)
    log = (consortium.folder / "superlink.txt").open("wb")
    command = [sys.executable, "-m", "fedcad.server.superlink", str(consortium.folder)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    made = FlowerControl(f"127.0.0.1:{consortium.config.control_port}", consortium.ca_certificate)

    def answers() -> bool:
        try:
            return made.nodes() == []
        except ProtocolError:
            return False

    try:
        wait_for(answers, "the start of the SuperLink")
        yield made
    finally:
        process.kill()
        process.wait()
        made.close()
        log.close()


@pytest.fixture(scope="module")
def keys(consortium, tmp_path_factory):
    """Public keys of two sites."""
    folder = tmp_path_factory.mktemp("sites")
    for name in ("north", "south"):
        make_site(folder / name, consortium, name)
    return {name: site.node_key_openssh for name, site in consortium.sites().items()}


def test_registered_keys_become_those_of_the_enrolled_sites_and_stay_so(control, keys):
    assert control.register_sites(keys) == [
        "the node key of north is accepted",
        "the node key of south is accepted",
    ]
    assert control.register_sites(keys) == []
    assert sorted(node.site for node in control.nodes()) == ["north", "south"]
    assert not any(node.is_online for node in control.nodes())

    assert control.register_sites({"north": keys["north"]}) == ["the node key of south is no longer accepted"]
    assert [node.site for node in control.nodes()] == ["north"]

    # Revoked, then taken in again with the same key; and two sites that exchange their keys.
    assert control.register_sites(keys) == ["the node key of south is accepted"]
    exchanged = {"north": keys["south"], "south": keys["north"]}
    assert len(control.register_sites(exchanged)) == 4
    assert control.register_sites(exchanged) == []
    assert control.register_sites({}) != []
    assert control.nodes() == []


def test_a_run_is_started_for_a_folder_and_stopped_more_than_once(control, tmp_path):
    run_id = control.start_run(tmp_path)
    found = control.run(run_id)
    assert (found.status, found.run_directory) == ("pending", str(tmp_path))
    control.stop_run(run_id)
    control.stop_run(run_id)
    control.stop_run(12345)
    assert control.run(run_id).status == "finished"
    assert control.run(12345) is None


def test_a_superlink_that_is_not_there_is_an_error_in_words(consortium):
    nobody = FlowerControl(f"127.0.0.1:{free_port()}", consortium.ca_certificate)
    with pytest.raises(ProtocolError, match="does not answer yet"):
        nobody.nodes()
