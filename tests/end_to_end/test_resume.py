"""Killed with SIGKILL anywhere, a run goes on with --resume and ends as if nothing had happened."""

import os
import signal
import traceback
from multiprocessing import forkserver

import pytest
import tiny_study

from fedcad.server.checkpoint import CheckpointStore
from fedcad.server.event_log import EventLog
from fedcad.shared.errors import CheckpointError
from fedcad.simulations import runner

STUDY = tiny_study.make_study(rounds=3)
SIMULATION = tiny_study.make_simulation(baselines={"alone": True, "pooled": False})


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name, when):
    """Die after a method when its arguments say so."""
    original = getattr(owner, name)

    def dying(self, *arguments, **named):
        found = original(self, *arguments, **named)
        if when(self, *arguments):
            die()
        return found

    setattr(owner, name, dying)


def is_federated(path):
    return "baselines" not in str(path)


MOMENTS = {
    **{
        f"after round {number}": lambda number=number: after(
            CheckpointStore,
            "save",
            lambda store, saved: is_federated(store._folder) and saved.round == number,
        )
        for number in (1, 2, 3)
    },
    **{
        f"in the middle of round {number}": lambda number=number: after(
            EventLog,
            "show",
            lambda log, event: (
                is_federated(log._path) and event["event"] == "answered" and event["round"] == number
            ),
        )
        for number in (1, 2, 3)
    },
    **{
        f"between log and checkpoint of round {number}": lambda number=number: after(
            EventLog,
            "append",
            lambda log, event: is_federated(log._path) and event.get("round") == number,
        )
        for number in (1, 3)
    },
    "before the first round": lambda: after(EventLog, "truncate", lambda log, count: is_federated(log._path)),
    "after the last validation": lambda: after(
        EventLog, "append", lambda log, event: is_federated(log._path) and event.get("version") == 3
    ),
    "in a comparison": lambda: after(
        CheckpointStore, "save", lambda store, saved: not is_federated(store._folder) and saved.round == 2
    ),
    "while testing": lambda: setattr(runner, "statistics_of", lambda *_, **__: die()),
}
FAST = {"after round 1", "in the middle of round 2", "between log and checkpoint of round 3", "while testing"}


def run_until_killed(prepare, action):
    """Run an action in a forked process that kills itself at the prepared moment.

    The fork uses this process's forkserver, which saves the seconds that a new one takes to import torch.
    """
    child = os.fork()
    if child == 0:
        try:
            # It is not this process's child, so that it cannot be waited for.
            forkserver.ForkServer.ensure_running = lambda _: None
            forkserver.ensure_running = lambda: None
            prepare()
            action()
        except BaseException:  # noqa: BLE001 - the child must never return into pytest
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run ended without reaching the moment of its death"
    assert os.WTERMSIG(status) == signal.SIGKILL


def simulate(folder, archives, **more):
    return tiny_study.simulate(
        folder, archives=archives, **({"study": STUDY, "simulation": SIMULATION} | more)
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, archives):
    return simulate(tmp_path_factory.mktemp("uninterrupted") / "run", archives)


@pytest.mark.parametrize(
    "moment", [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS]
)
def test_killed_and_resumed_is_the_same_run(moment, tmp_path, archives, uninterrupted):
    folder = tmp_path / "run"
    run_until_killed(MOMENTS[moment], lambda: simulate(folder, archives))
    assert not (folder / "results.json").exists()
    resumed = simulate(folder, archives, resume=True)
    assert resumed.results["model_sha256"] == uninterrupted.results["model_sha256"]
    assert tiny_study.without_times(resumed) == tiny_study.without_times(uninterrupted)


def test_killed_in_every_round_one_after_another(tmp_path, archives, uninterrupted):
    folder = tmp_path / "run"
    for number in (1, 2, 3):
        run_until_killed(
            MOMENTS[f"in the middle of round {number}"],
            lambda: simulate(folder, archives, resume=folder.exists()),
        )
    resumed = simulate(folder, archives, resume=True)
    assert tiny_study.without_times(resumed) == tiny_study.without_times(uninterrupted)


def test_finished_run_resumed_is_the_same(tmp_path, archives):
    folder = tmp_path / "run"
    first = simulate(folder, archives)
    again = simulate(folder, archives, resume=True)
    assert tiny_study.without_times(first) == tiny_study.without_times(again)


def test_engine_may_change_and_nothing_else(tmp_path, archives):
    folder = tmp_path / "run"
    simulate(folder, archives)
    engine = tiny_study.make_simulation(baselines={"alone": True, "pooled": False}, engine={"workers": 1})
    simulate(folder, archives, simulation=engine, resume=True)
    before = (folder / "results.json").read_bytes()
    for change in (
        {"study": tiny_study.make_study(rounds=4)},
        {"simulation": SIMULATION.model_copy(update={"seeds": (2,)})},
        {"simulation": SIMULATION.model_copy(update={"leave_one_site_out": True})},
    ):
        with pytest.raises(CheckpointError, match="another configuration"):
            simulate(folder, archives, resume=True, **change)
    assert (folder / "results.json").read_bytes() == before


def test_folder_in_use_is_refused(tmp_path, archives):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(CheckpointError, match="not empty"):
            simulate(folder, archives, resume=resume)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    simulate(tmp_path / "other", archives, study=tiny_study.make_study(rounds=1))
    with pytest.raises(CheckpointError, match="--resume"):
        simulate(tmp_path / "other", archives, study=tiny_study.make_study(rounds=1))


def test_resume_without_a_run_starts_one(tmp_path, archives, uninterrupted):
    run = simulate(tmp_path / "new", archives, resume=True)
    assert run.results["model_sha256"] == uninterrupted.results["model_sha256"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"simulation": 3}'])
def test_damaged_configuration_is_an_error_in_words(tmp_path, archives, content):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "configuration.json").write_text(content)
    with pytest.raises(CheckpointError):
        simulate(folder, archives, resume=True)
