"""A study of a real consortium's folder over a grid of signing sites: finished, paused, stopped, waiting."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from site_grid import KEYS, Node, SiteGrid
from study_factory import DirectChannel, make_contract, make_run, make_sites

from fedcad.server import conduct, deployment, site_channel
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.deployment import members_of, serve_study
from fedcad.server.enrolment import enrol, revoke
from fedcad.server.outcome import model_hash, read_outcome
from fedcad.server.study_folder import StudyFolder, Wanted
from fedcad.server.submission import Submission, submit
from fedcad.shared.errors import CheckpointError, IdentityError
from fedcad.shared.flower_internals import grid
from fedcad.shared.flower_internals.grid import UNREADABLE
from fedcad.shared.flower_records import read_plan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_channel, "POLL_S", 0.001)
    # The bound on answers changes Flower in this process, which other tests use too.
    monkeypatch.setattr(grid.grid, "pull_objects", vars(grid.grid)["pull_objects"])
    monkeypatch.setattr(Array, "inflate", Array.__dict__["inflate"])


class World:
    """A consortium with three enrolled sites that answer in this process."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.home = Consortium.create(root / "home", make_config("north", "localhost:8443"))
        self.contract = make_contract(**changes)
        self.nodes = [
            Node(site, KEYS[site.name], self.home.signing_key().public) for site in make_sites(self.contract)
        ]
        for node in self.nodes:
            enrol(self.home, request_of(node.site.name))
        self.grid = SiteGrid(self.nodes)
        self.folder = self.submit()

    def submit(self, days: int = 30) -> StudyFolder:
        names = tuple(node.site.name for node in self.nodes)
        submission = Submission("north", names, self.home.signing_key(), datetime.now(UTC), days)
        return submit(self.home.studies, self.contract, submission)

    def serve(self) -> dict[str, Any] | None:
        serve_study(self.grid, self.folder)
        return read_outcome(self.folder.path)


def request_of(name: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    from fedcad.shared.enrolment import EnrolmentRequest

    key = ec.generate_private_key(ec.SECP384R1())
    return EnrolmentRequest.make(name, key, KEYS[name], now=datetime.now(UTC))


def test_a_study_ends_with_the_model_of_a_direct_run_and_its_delivery(tmp_path: Path) -> None:
    world = World(tmp_path)
    outcome = world.serve()
    direct = make_run(tmp_path / "direct", world.contract, DirectChannel(make_sites(world.contract))).run()
    assert outcome is not None
    assert outcome["status"] == "completed"
    assert outcome["model_sha256"] == model_hash(direct.selection.model)
    delivery = json.loads((world.folder.path / "test.json").read_text())
    assert set(delivery["sites"]) == {"a", "b", "c"}
    live = world.folder.live()
    assert live is not None
    assert live.round == 0 or live.phase


def test_a_paused_study_ends_its_process_without_an_outcome_and_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)

    def pause(node: Node, message: Any) -> Any:
        world.folder.want(Wanted.PAUSED)
        return node.honest(message)

    world.nodes[0].act = pause
    assert world.serve() is None
    world.nodes[0].act = None
    world.folder.want(Wanted.RUNNING)
    outcome = world.serve()
    direct = make_run(tmp_path / "direct", world.contract, DirectChannel(make_sites(world.contract))).run()
    assert outcome is not None
    assert outcome["model_sha256"] == model_hash(direct.selection.model)


def test_a_stopped_study_has_what_it_had_as_its_result(tmp_path: Path) -> None:
    world = World(tmp_path)

    def stop(node: Node, message: Any) -> Any:
        if message.metadata.message_type == "train":
            world.folder.want(Wanted.STOPPED)
        return node.honest(message)

    world.nodes[0].act = stop
    outcome = world.serve()
    assert outcome is not None
    assert (outcome["status"], outcome["rounds_closed"]) == ("stopped", 1)


def test_a_study_waits_below_its_quorum_and_goes_on_when_a_site_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, participation={"quorum": 3, "deadline_s": 30.0})
    world.grid.offline = {"b"}
    seen: list[tuple[str, list[str]]] = []
    patient = deployment.Patient

    def quick_patience(is_wanted: Any, show: Any, *, wait_s: float) -> Any:
        def showing(reason: str, sites: Any, until: float) -> None:
            seen.append((reason, list(sites)))
            world.grid.offline = set()
            show(reason, sites, until)

        return patient(is_wanted, showing, wait_s=wait_s)

    monkeypatch.setattr(deployment, "Patient", quick_patience)
    monkeypatch.setattr(conduct, "PAUSE_S", 0.01)
    outcome = world.serve()
    assert outcome is not None
    assert outcome["status"] == "completed"
    assert len(seen) == 1
    assert "quorum is 3" in seen[0][0]
    assert "not connected" in seen[0][0]
    assert seen[0][1] == ["b"]


def test_waiting_ends_with_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path, participation={"quorum": 3, "deadline_s": 30.0, "wait_s": 0.0})
    world.grid.offline = {"b"}
    outcome = world.serve()
    assert outcome is not None
    assert outcome["status"] == "stopped"
    assert "b lost (not ready: not connected)" in outcome["reason"]
    wish = world.folder.wish()
    assert wish is not None
    assert wish.wanted is Wanted.STOPPED


def test_a_revoked_site_is_named_and_not_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    revoke(world.home, "c", "left")
    outcome = world.serve()
    assert outcome is not None
    assert outcome["status"] == "completed"
    assert not world.nodes[2].asked
    first = json.loads((world.folder.path / "rounds.jsonl").read_text().splitlines()[0])
    parts = {part["site"]: part for part in first.get("participation", [])}
    lines = (world.folder.path / "rounds.jsonl").read_text()
    assert "revoked: left" in lines or "revoked" in parts.get("c", {}).get("reason", "")


def test_expired_sites_are_objected_to(tmp_path: Path) -> None:
    world = World(tmp_path)
    later = datetime.now(UTC) + timedelta(days=100_000)
    assert all("ended at" in member.objection for member in members_of(world.home.folder, later).values())
    assert all(not member.objection for member in members_of(world.home.folder).values())


def test_only_one_process_runs_a_study(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.folder.hold(), pytest.raises(CheckpointError):
        world.serve()


def test_a_contract_that_was_changed_after_sealing_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    make_contract(rounds=9).save(world.folder.path / "contract")
    with pytest.raises(IdentityError, match="another contract"):
        world.serve()


def test_a_bomb_for_an_answer_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """Flower's own reader would build a terabyte out of five megabytes; the study bounds it first."""
    world = World(tmp_path)
    world.serve()
    piece = b"ArrayChunk  5242880\0" + bytes(5 * 2**20)
    described = {"dtype": "float32", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 200_000}
    body = json.dumps(described).encode()
    array = f"Array {get_object_id(piece)} {len(body)}".encode() + b"\0" + body
    contents = {get_object_id(each): each for each in (piece, array)}
    with pytest.raises(UNREADABLE, match="more than"):
        inflate_object_from_contents(get_object_id(array), contents)


def test_the_bound_on_answers_has_room_for_an_honest_one(tmp_path: Path) -> None:
    world = World(tmp_path, evaluation={"bootstrap_replicates": 50})
    sent = sum(value.nbytes for value in (world.contract.initial.numpy(),))
    assert sent + 2**20 < deployment.largest_answer(world.contract) < sent + 2**27


def test_the_delivery_is_of_the_present_attempt(tmp_path: Path) -> None:
    """Sites answer nothing of an earlier one: a relay could otherwise deliver an older model again."""
    world = World(tmp_path)
    (world.folder.path / "checkpoints").mkdir()
    (world.folder.path / "checkpoints" / "attempt.json").write_text('{"attempt": 3}')
    world.serve()
    for node in world.nodes:
        plan = read_plan(node.asked[-1])[0]
        assert (plan.work, plan.attempt) == (("test",), 3)


def test_a_contract_that_ends_meanwhile_stops_the_study_with_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    seal = json.loads((world.folder.path / "seal.json").read_text())
    later = datetime.fromisoformat(seal["seal"]["expires"]) + timedelta(seconds=1)
    assert deployment._goes_on(world.folder)
    assert not deployment._goes_on(world.folder, later)
    outcome = world.serve()
    assert outcome is not None
    assert (outcome["status"], outcome["rounds_closed"]) == ("stopped", 0)
    assert "the contract ended at" in outcome["reason"]
    assert not any(node.asked for node in world.nodes)
