"""Algorithms with state at the sites: rounds that are lost, runs that are killed, the selected version."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
import torch
from safetensors import safe_open
from study_factory import bits_of, make_run

from fedcad.client.node import Node
from fedcad.client.site_state import SiteStateStore
from fedcad.client.workbench import Workbench, freeze
from fedcad.server.channel import Lost, Reply
from fedcad.server.checkpoint import Checkpoint, CheckpointStore
from fedcad.server.event_log import EventLog
from fedcad.server.final_test import counted_up_to, statistics_of
from fedcad.shared.contract import Contract
from fedcad.shared.messages import RoundPlan, SiteInfo, Vectors

SGD = {"optimizer": {"name": "sgd", "learning_rate": 0.05}, "batch_size": 4, "local_epochs": 1}
BATCH_NORM = {"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch"}
STUDIES = {
    "scaffold": tiny_study.make_study(algorithm={"name": "scaffold"}, training=SGD, rounds=4),
    "fedbn": tiny_study.make_study(algorithm={"name": "fedbn"}, model=BATCH_NORM, training=SGD, rounds=4),
}
NAMES = ("a", "b", "c")


class Stopped(Exception):  # noqa: N818 - stands for kill -9
    """The process ended here."""


class Nodes:
    """A channel to real nodes, of which all networks are shared, as in a simulation's worker."""

    def __init__(
        self,
        contract: Contract,
        root: Path,
        *,
        unreached: tuple[str, int] | None = None,
        unheard: tuple[str, int] | None = None,
        stop_in: int | None = None,
    ) -> None:
        bench = Workbench(contract)
        self._nodes = {
            name: Node(name, tiny_study.spread_cases(6 + 4 * seed, seed=seed), bench, state=root / name)
            for seed, name in enumerate(NAMES)
        }
        self._unreached, self._unheard, self._stop_in = unreached, unheard, stop_in

    def enrolled(self) -> frozenset[str]:
        return frozenset(self._nodes)

    def ready(self, sites: Any = None, *, deadline_s: float = 0.0) -> Mapping[str, SiteInfo]:
        return {name: self._nodes[name].info() for name in sites or NAMES}

    def ask(self, plans: Mapping[str, RoundPlan], vectors: Vectors, deadline_s: float) -> Iterator[Reply]:
        for number, (name, plan) in enumerate(plans.items()):
            if plan.round == self._stop_in and number == 2:
                raise Stopped
            if (name, plan.round) == self._unreached:
                yield Reply(name, Lost("cable"))
                continue
            answer = self._nodes[name].answer(plan, vectors, plan.broadcast_hash)
            yield Reply(name, Lost("cable") if (name, plan.round) == self._unheard else answer)


@pytest.fixture(params=STUDIES)
def contract(request: pytest.FixtureRequest) -> Contract:
    torch.set_num_threads(1)
    return freeze(STUDIES[request.param])


def run(folder: Path, contract: Contract, **trouble: Any) -> Checkpoint:
    return make_run(folder, contract, Nodes(contract, folder / "sites", **trouble)).run()


def states(folder: Path) -> dict[str, Any]:
    """What is in every state file below a run; the format writes facts in any order."""
    found = {}
    for path in folder.rglob("sites/**/*.safetensors"):
        with safe_open(path, framework="np") as stream:
            tensors = {name: stream.get_tensor(name).tobytes() for name in stream.keys()}  # noqa: SIM118
            found[str(path.relative_to(folder))] = (stream.metadata(), tensors)
    return found


def test_state_matters(tmp_path: Path, contract: Contract) -> None:
    """Otherwise the tests below could not fail."""
    algorithm = {"name": "fedavg", "weighting": "uniform"}
    study = contract.study.model_copy(
        update={"algorithm": tiny_study.make_study(algorithm=algorithm).algorithm}
    )
    other = run(tmp_path / "fedavg", freeze(study))
    found = run(tmp_path / "found", contract)
    assert found.state["model"].shape != other.state["model"].shape or not torch.equal(
        found.state["model"], other.state["model"]
    )
    assert not any(path.is_file() for path in (tmp_path / "fedavg" / "sites").rglob("*"))
    assert states(tmp_path / "found")


def test_a_lost_answer_leaves_no_trace_at_the_site(tmp_path: Path, contract: Contract) -> None:
    """That b trained in round 2, unheard, is as if it had never been asked."""
    unreached = run(tmp_path / "unreached", contract, unreached=("b", 2))
    unheard = run(tmp_path / "unheard", contract, unheard=("b", 2))
    assert bits_of(unheard) == bits_of(unreached)
    assert unheard.last_counted == {"a": 4, "b": 4, "c": 4}
    kept, expected = states(tmp_path / "unheard"), states(tmp_path / "unreached")
    assert {k: v for k, v in kept.items() if "/b/" not in k} == {
        k: v for k, v in expected.items() if "/b/" not in k
    }


@pytest.mark.parametrize("stop_in", [1, 2, 3, 4, 0])
def test_stopped_in_any_round_and_resumed_is_the_same_run(
    tmp_path: Path, contract: Contract, stop_in: int
) -> None:
    untouched = run(tmp_path / "untouched", contract, unheard=("c", 3))
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", contract, unheard=("c", 3), stop_in=stop_in)
    resumed = run(tmp_path / "stopped", contract, unheard=("c", 3))
    assert bits_of(resumed) == bits_of(untouched)
    assert states(tmp_path / "stopped") == states(tmp_path / "untouched")


@pytest.mark.parametrize("lost", [2, 3, 4])
def test_a_coordinator_that_lost_its_newest_checkpoint_ends_with_the_same_bits(
    tmp_path: Path, contract: Contract, lost: int
) -> None:
    untouched = run(tmp_path / "untouched", contract)
    with pytest.raises(Stopped):
        run(tmp_path / "run", contract, stop_in=(lost + 1) % 5)
    (tmp_path / "run" / "checkpoints" / f"round-{lost:04d}.json").unlink()
    resumed = run(tmp_path / "run", contract)
    assert bits_of(resumed) == bits_of(untouched)
    assert states(tmp_path / "run") == states(tmp_path / "untouched")


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_site_tests_with_its_entries_of_the_selected_version(tmp_path: Path, version: int) -> None:
    """Each version in turn is selected and tested; reference: a run of so many rounds, tested at once."""
    contract = freeze(STUDIES["fedbn"])
    select_only(version, tmp_path / "long", contract)
    chosen = statistics_at_sites(tmp_path / "long", contract, version)
    if version:
        select_only(version, tmp_path / "short", contract, stop_in=version + 1)
        expected = statistics_at_sites(tmp_path / "short", contract, version)
    else:
        expected = statistics_at_sites(tmp_path / "fresh", contract, 0, fresh=True)
    assert all(np.array_equal(chosen[site], expected[site]) for site in NAMES)
    other = SiteStateStore(tmp_path / "long" / "sites" / "a", contract.study_hash)
    first = Workbench(contract).first_personal()
    assert not same(other.selected(4, first), other.selected(version, first))


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def select_only(version: int, folder: Path, contract: Contract, stop_in: int | None = None) -> None:
    """Run under the rule that one version is selected, once it has been validated."""
    study = make_run(folder, contract, Nodes(contract, folder / "sites", stop_in=stop_in))
    usual = study._select

    def select(checkpoint: Checkpoint, validation: Any, cohort: Any) -> Any:
        chosen, lines = usual(checkpoint, validation, cohort)
        if checkpoint.round == version:
            return replace(chosen, version=version, model=checkpoint.state["model"]), lines
        return checkpoint.selection, lines

    study._select = select  # type: ignore[method-assign]
    try:
        study.run()
    except Stopped:
        assert stop_in is not None


def statistics_at_sites(folder: Path, contract: Contract, version: int, *, fresh: bool = False) -> Any:
    """Test statistics of a version's parameters at each site.

    A run that was stopped in round v + 1 has two checkpoints; the newest is of version v.
    """
    channel = Nodes(contract, folder / "sites")
    if fresh:
        model, rounds = contract.initial, {}
    else:
        checkpoint = CheckpointStore(folder / "checkpoints").latest(contract.study_hash)
        assert checkpoint is not None
        stopped = checkpoint.round == version and not checkpoint.is_finished
        model = checkpoint.state["model"] if stopped else checkpoint.selection.model
        rounds = counted_up_to(folder / "rounds.jsonl", version)
    return statistics_of(contract, channel, {"model": model.numpy()}, sites=channel.ready(), selected=rounds)


# Whole simulations.

SIMULATION = tiny_study.make_simulation(leave_one_site_out=True)
FEDBN = tiny_study.make_study(algorithm={"name": "fedbn"}, model=BATCH_NORM, rounds=3)


def with_workers(workers: int) -> Any:
    return SIMULATION.model_copy(update={"engine": SIMULATION.engine.model_copy(update={"workers": workers})})


def simulate(folder: Path, archives: Path, *, workers: int = 2, resume: bool = False) -> tiny_study.Simulated:
    return tiny_study.simulate(
        folder, archives=archives, study=FEDBN, simulation=with_workers(workers), resume=resume
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> tiny_study.Simulated:
    return simulate(tmp_path_factory.mktemp("uninterrupted") / "run", archives)


def test_fedbn_is_compared_with_whole_models_and_says_where_it_has_no_entries(
    uninterrupted: tiny_study.Simulated,
) -> None:
    results = uninterrupted.results
    models = {each["model"] for each in results["evaluations"]}
    assert {"federated", "pooled", "alone-site-1", "ensemble", "without-site-1"} <= models
    assert [note for note in results["notes"] if "site-1 had no part in the model without-site-1" in note]
    assert not [note for note in results["notes"] if "federated" in note]


def test_one_worker_gives_the_same_bits(
    tmp_path: Path, archives: Path, uninterrupted: tiny_study.Simulated
) -> None:
    alone = simulate(tmp_path / "run", archives, workers=1)
    assert tiny_study.without_times(alone) == tiny_study.without_times(uninterrupted)


def test_killed_in_every_round_and_resumed_is_the_same_run(
    tmp_path: Path, archives: Path, uninterrupted: tiny_study.Simulated
) -> None:
    folder = tmp_path / "run"
    for number in (1, 2, 3):
        run_until_killed(number, lambda: simulate(folder, archives, resume=folder.exists()))
    resumed = simulate(folder, archives, resume=True)
    assert resumed.results["model_sha256"] == uninterrupted.results["model_sha256"]
    assert tiny_study.without_times(resumed) == tiny_study.without_times(uninterrupted)


def run_until_killed(number: int, action: Callable[[], Any]) -> None:
    """Run in a forked process that is killed when a site has answered in a round of the federation."""
    child = os.fork()
    if child == 0:
        try:
            # It is not this process's child, so that it cannot be waited for.
            forkserver.ForkServer.ensure_running = lambda _: None  # type: ignore[attr-defined, method-assign]
            forkserver.ensure_running = lambda: None
            show = EventLog.show

            def dying(log: EventLog, event: Mapping[str, Any]) -> None:
                show(log, event)
                if "baselines" not in str(log._path) and (event["event"], event.get("round")) == (
                    "answered",
                    number,
                ):
                    os.kill(os.getpid(), signal.SIGKILL)

            EventLog.show = dying  # type: ignore[method-assign]
            action()
        except BaseException:  # noqa: BLE001 - the child must never return into pytest
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run ended without reaching the moment of its death"
