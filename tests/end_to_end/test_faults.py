"""Sites that fail: the run goes on under its quorum, and says who was missing and why."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_study

from fedcad.server.checkpoint import CheckpointStore
from fedcad.shared.contract import Contract
from fedcad.shared.errors import QuorumError

NO_COMPARISONS = {"alone": False, "pooled": False}
EXPECTED = {
    "drop": ("lost", "no connection"),
    "delay": ("late", "deadline"),
    "die": ("lost", "died (exit code -9)"),
    "nan": ("rejected", ""),
    "wrong-shape": ("rejected", "shape"),
    "stale-round": ("rejected", "round 1"),
}


def fault(kind, site="site-2", rounds=(2,)):
    more = {"delay_s": 4000.0} if kind == "delay" else {}
    return {"kind": kind, "site": site, "rounds": list(rounds), **more}


def simulate(folder, archives, faults, *, quorum=1, **more):
    return tiny_study.simulate(
        folder,
        archives=archives,
        study=tiny_study.make_study(rounds=3, participation={"quorum": quorum}),
        simulation=tiny_study.make_simulation(faults=faults, baselines=NO_COMPARISONS),
        **more,
    )


@pytest.mark.parametrize("kind", EXPECTED)
def test_run_goes_on_and_names_site_and_reason(kind, tmp_path, archives):
    run = simulate(tmp_path / "run", archives, [fault(kind)], quorum=2, report=kind in ("drop", "nan"))
    status, reason = EXPECTED[kind]
    assert run.results["status"] == "completed"
    first, second, third = tiny_study.rounds_of(run)
    parts = {part["site"]: part for part in second["participation"]}
    assert parts["site-2"]["status"] == status
    assert reason in parts["site-2"]["reason"]
    assert {parts[site]["status"] for site in ("site-1", "site-3")} == {"counted"}
    for healthy in (first, third):
        assert {part["status"] for part in healthy["participation"]} == {"counted"}
    if kind in ("drop", "nan"):
        html = (run.folder / "report.html").read_text()
        assert "site-2" in html
        assert status in html


def test_a_faulty_round_is_as_if_the_site_had_not_been_there(tmp_path, archives):
    """Whatever went wrong, the same model: nothing of a bad update reaches the sum."""
    hashes = {
        simulate(tmp_path / kind, archives, [fault(kind)]).results["last_sha256"]
        for kind in ("drop", "delay", "die", "nan", "wrong-shape", "stale-round")
    }
    assert len(hashes) == 1
    assert simulate(tmp_path / "healthy", archives, []).results["last_sha256"] not in hashes


def test_missed_quorum_stops_with_reason_checkpoint_and_report(tmp_path, archives):
    faults = [fault("drop", "site-1"), fault("nan", "site-3")]
    with pytest.raises(QuorumError) as caught:
        simulate(tmp_path / "run", archives, faults, quorum=2, report=True)
    text = str(caught.value)
    assert "round 2" in text
    assert "site-1 lost (no connection" in text
    assert "site-3 rejected" in text
    run = tiny_study.read(tmp_path / "run")
    assert (run.results["status"], run.results["rounds_closed"]) == ("stopped", 1)
    assert run.results["evaluations"] == []
    assert run.events[-1]["event"] == "stopped"
    assert "stopped" in (run.folder / "report.html").read_text().lower()
    contract = Contract.load(run.folder / "contract")
    checkpoint = CheckpointStore(run.folder / "checkpoints").latest(contract.study_hash)
    assert checkpoint.round == 1
    assert np.isfinite(checkpoint.state["model"].numpy()).all()


def test_stopped_run_resumed_stops_again_in_the_same_way(tmp_path, archives):
    faults = [fault("drop", site) for site in ("site-1", "site-2", "site-3")]
    for resume in (False, True):
        with pytest.raises(QuorumError, match="round 2"):
            simulate(tmp_path / "run", archives, faults, resume=resume)
    events = tiny_study.read(tmp_path / "run").events
    assert [event["event"] for event in events].count("round") == 1


def test_diverging_training_stops_in_words(tmp_path, archives):
    plain = tiny_study.study_plain()
    training = plain["training"] | {
        "optimizer": {"name": "sgd", "learning_rate": 10.0, "momentum": 0.99},
        "local_epochs": 60,
    }
    model = {"name": "cnn", "convolutions": [{"features": 4}] * 3, "norm": "none", "activation": "leaky_relu"}
    study = tiny_study.make_study(training=training, model=model)
    with pytest.raises(QuorumError, match="NaN or infinity"):
        tiny_study.simulate(tmp_path / "run", archives=archives, study=study)


@pytest.mark.slow
def test_command_ends_with_2_and_the_reason(tmp_path, archives):
    path = tiny_study.write_files(
        tmp_path,
        study=tiny_study.study_plain(participation={"quorum": 3}),
        simulation=tiny_study.simulation_plain(faults=[fault("drop")], baselines=NO_COMPARISONS),
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fedcad.shared.cli", "simulate", str(path)),
            *("--out", str(tmp_path / "run"), "--archives", str(archives)),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 2
    assert "site-2 lost" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "stopped"
    assert (tmp_path / "run" / "report.html").exists()
