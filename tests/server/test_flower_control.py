"""With a real SuperLink on loopback; one for all tests of this file."""

import os
import ssl
import subprocess
import sys

import httpx
import pytest
from consortium_processes import free_port, make_consortium, make_site, wait_for

from fedcad.server.flower_control import CONTROL_HEADER, FlowerControl, control_token
from fedcad.shared.errors import IdentityError, ProtocolError
from fedcad.shared.flower_environment import flower_environment
from fedcad.shared.secret_files import write_secret


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    return make_consortium(tmp_path_factory.mktemp("control") / "consortium")


@pytest.fixture(scope="module")
def control(consortium):
    environment = flower_environment(consortium.flower_home, os.environ)
    log = (consortium.folder / "superlink.txt").open("wb")
    command = [sys.executable, "-m", "fedcad.server.superlink", str(consortium.folder)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    made = FlowerControl(
        f"127.0.0.1:{consortium.config.control_port}", consortium.ca_certificate, consortium.executor_secret
    )

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


def test_another_account_of_the_machine_can_start_nothing(control, consortium, tmp_path):
    """Without the secret, though with the public certificate: a run is code that the coordinator executes."""
    secret = tmp_path / "guessed.secret"
    write_secret(secret, b"0" * 64)
    address = f"127.0.0.1:{consortium.config.control_port}"
    other = FlowerControl(address, consortium.ca_certificate, secret)
    before = len(control.runs())
    for call in (lambda: other.start_run(tmp_path), other.nodes, lambda: other.register_sites({})):
        with pytest.raises(ProtocolError, match="HTTP status 401"):
            call()
    assert len(control.runs()) == before
    runtime = f"https://{address}/v1/runtime/acquire-task"
    context = ssl.create_default_context(cafile=str(consortium.ca_certificate))
    for headers in ({}, {CONTROL_HEADER: control_token(secret.read_bytes())}):
        answer = httpx.post(runtime, content=b"", headers=headers, verify=context, trust_env=False)
        assert answer.is_client_error


def test_a_secret_that_others_can_read_is_refused(consortium, tmp_path):
    loose = tmp_path / "loose.secret"
    write_secret(loose, b"0" * 64)
    loose.chmod(0o644)
    with pytest.raises(IdentityError, match="other accounts"):
        FlowerControl("127.0.0.1:1", consortium.ca_certificate, loose)


def test_a_superlink_that_is_not_there_is_an_error_in_words(consortium):
    nobody = FlowerControl(f"127.0.0.1:{free_port()}", consortium.ca_certificate, consortium.executor_secret)
    with pytest.raises(ProtocolError, match="does not answer yet"):
        nobody.nodes()
