"""SuperLink, executor and node as real processes over TLS: they come up, refuse, and survive kill -9."""

import io
import re
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from consortium_processes import (
    Proxy,
    Supervised,
    arguments_of,
    core_seconds,
    family_of,
    is_alive,
    listens,
    make_consortium,
    make_site,
    memory_bytes,
    wait_for,
)

from fedcad.client.supernode import read_contact
from fedcad.server.flower_control import FlowerControl
from fedcad.shared.bundle import bundle_hash, hash_of_bundle, pack
from fedcad.shared.process_log import read_log

EVIL_APP = """
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
app = ServerApp()
client = ClientApp()

@client.query()
def steal(message, context):
    Path("{stolen}").write_text("patients")
    return Message(RecordDict(), reply_to=message)

@app.main()
def main(grid, context):
    import time
    (node,) = grid.get_node_ids()
    sent = grid.push_messages([Message(RecordDict({{"c": ConfigRecord()}}), node, "query")])
    while not (found := list(grid.pull_messages(list(sent)))):
        time.sleep(0.1)
    error = found[0].error.reason if found[0].has_error() else "it ran"
    Path("{answer}").write_text(error)
"""


def evil_bundle(folder: Path) -> bytes:
    """Return a bundle with code, made by Flower's own builder, under FedCAD's name and version."""
    from flwr.cli.build import build_fab_from_files

    with zipfile.ZipFile(io.BytesIO(pack("evil:app", "evil:client"))) as honest:
        project = honest.read("pyproject.toml")
    code = EVIL_APP.format(stolen=folder / "stolen", answer=folder / "answer").encode()
    return build_fab_from_files({"pyproject.toml": project, "evil.py": code})[0]


@pytest.fixture
def consortium(tmp_path):
    return make_consortium(tmp_path / "consortium")


@pytest.fixture
def hospital(tmp_path, consortium):
    return make_site(tmp_path / "north", consortium)


@pytest.fixture
def coordinator(consortium):
    supervised = Supervised("server", consortium.folder)
    yield supervised
    supervised.end()


@pytest.fixture
def node(hospital):
    supervised = Supervised("client", hospital.folder)
    yield supervised
    supervised.end()


def control_of(consortium) -> FlowerControl:
    return FlowerControl(
        f"127.0.0.1:{consortium.config.control_port}", consortium.ca_certificate, consortium.executor_secret
    )


def is_online(consortium) -> bool:
    try:
        return any(site.is_online for site in control_of(consortium).nodes())
    except Exception:  # noqa: BLE001 - it may be starting
        return False


def status_of(address: str, path: str, consortium) -> int:
    context = ssl.create_default_context(cafile=str(consortium.ca_certificate))
    try:
        with urllib.request.urlopen(f"https://{address}{path}", context=context, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def activations(consortium) -> int:
    return sum("Activated node_id" in entry["text"] for entry in read_log(consortium.logs, "superlink"))


def test_they_come_up_refuse_foreign_code_and_survive_kill_9(
    consortium, hospital, coordinator, node, tmp_path
):
    coordinator.start()
    node.start()
    wait_for(lambda: is_online(consortium), "the first contact")

    # The public port knows the Fleet API only; the rest listens on loopback only.
    public = consortium.config.address
    paths = (
        "/",
        "/docs",
        "/health",
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../docs",
    )
    assert [status_of(public, path, consortium) for path in paths] == [404] * len(paths)
    assert status_of(public, "/v1/fleet/pull-messages", consortium) == 405
    loopback = "0100007F"  # 127.0.0.1
    assert listens(coordinator.pid_of("superlink")) == {
        (loopback, consortium.config.control_port),
        (loopback, int(public.rpartition(":")[2])),
    }
    assert {host for host, _ in listens(node.pid_of("supernode"))} == {loopback}
    assert {path.stat().st_mode & 0o777 for path in consortium.database.parent.iterdir()} == {0o600}

    # No secret is an argument of any process.
    secret = (consortium.keys / "superexec.secret").read_text()
    everyone = [*family_of(coordinator.process.pid), *family_of(node.process.pid)]
    assert len(everyone) == 5
    assert not any(secret in arguments_of(number) for number in everyone)

    # A bundle with code, of the same name and version, is refused by name; nothing of it is unpacked.
    bundle = evil_bundle(tmp_path)
    control = control_of(consortium)
    control._client.start_run(bundle, hash_of_bundle(bundle), {"run-directory": ""})
    wait_for(lambda: (tmp_path / "answer").exists(), "an answer to the foreign bundle")
    answer = (tmp_path / "answer").read_text()
    assert f"this site runs only the bundle {bundle_hash()[:16]}" in answer
    assert "it refused fedcad/fedcad" in answer
    assert hash_of_bundle(bundle)[:16] in answer
    assert not (tmp_path / "stolen").exists()
    assert not list(hospital.flower_home.rglob("evil.py"))
    assert any(answer in entry["text"] for entry in read_log(hospital.logs, "supernode"))

    # The node comes back at once, although its old session has not expired.
    before, killed = activations(consortium), node.kill("supernode")
    wait_for(lambda: activations(consortium) > before, "the node's return", 25.0)
    assert node.pid_of("supernode") != killed

    # The coordinator's processes come back, and the node with them.
    killed = coordinator.kill("superlink")
    wait_for(lambda: coordinator.pid_of("superlink") not in (killed, None), "a new SuperLink")
    killed = coordinator.kill("superexec")
    wait_for(lambda: coordinator.pid_of("superexec") not in (killed, None), "a new executor")
    restarted = time.time()
    wait_for(lambda: read_contact(hospital.run)["last_contact"] > restarted, "contact with the new SuperLink")


@pytest.mark.slow
def test_a_killed_supervisor_takes_its_processes_along_and_resumes(consortium, hospital, coordinator, node):
    coordinator.start()
    node.start()
    wait_for(lambda: is_online(consortium), "the first contact")
    old = [coordinator.pid_of("superlink"), coordinator.pid_of("superexec"), node.pid_of("supernode")]
    coordinator.kill_supervisor()
    node.kill_supervisor()
    wait_for(lambda: not any(is_alive(number) for number in old), "the end of the processes", 10.0)
    coordinator.start()
    node.start()
    wait_for(lambda: coordinator.pid_of("superlink") not in (old[0], None), "a new SuperLink")
    restarted = time.time()
    wait_for(lambda: read_contact(hospital.run).get("last_contact", 0.0) > restarted, "contact")


@pytest.mark.slow
def test_a_revoked_site_is_told_so_and_let_in_again(consortium, hospital, coordinator, node):
    from fedcad.server.enrolment import revoke

    coordinator.start()
    node.start()
    wait_for(lambda: is_online(consortium), "the first contact")
    revoke(consortium, "north", "test")
    wait_for(lambda: read_contact(hospital.run).get("state") == "not connected", "the refusal")
    assert re.search("revoked", read_contact(hospital.run)["reason"])


@pytest.mark.slow
def test_an_idle_node_costs_next_to_nothing(consortium, hospital, coordinator, node):
    coordinator.start()
    node.start()
    wait_for(lambda: is_online(consortium), "the first contact")
    assert node.process is not None
    processes = family_of(node.process.pid)
    before = sum(map(core_seconds, processes))
    time.sleep(60.0)
    used = sum(map(core_seconds, processes)) - before
    memory = sum(map(memory_bytes, processes))
    assert memory < 300e6, f"{len(processes)} processes, {memory / 1e6:.0f} MB"
    assert used < 0.6, f"{used / 60.0:.2%} of a core"


@pytest.mark.slow
def test_a_node_reaches_its_coordinator_through_the_proxy_of_its_site_file(tmp_path):
    proxy = Proxy()
    consortium = make_consortium(tmp_path / "consortium", host="coordinator.example")
    hospital = make_site(tmp_path / "north", consortium, more=f"proxy: {proxy.address}\n")
    coordinator, node = Supervised("server", consortium.folder), Supervised("client", hospital.folder)
    try:
        coordinator.start()
        node.start()
        wait_for(lambda: is_online(consortium), "the first contact")
        assert set(proxy.targets) == {consortium.config.address}
    finally:
        node.end()
        coordinator.end()
        proxy.close()


@pytest.mark.slow
def test_a_node_says_why_it_cannot_connect_and_connects_later(consortium, hospital, coordinator, node):
    node.start()
    wait_for(lambda: "nothing listens" in read_contact(hospital.run).get("reason", ""), "the reason")
    assert node.state()["processes"]["supernode"]["restarts"] == 0
    coordinator.start()
    wait_for(lambda: read_contact(hospital.run)["state"] == "connected", "the connection")
    assert node.state()["processes"]["supernode"]["restarts"] == 0
