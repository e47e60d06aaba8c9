"""Flower's own runtime gives the same bits and the same participation as the in-process engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study

from fedcad.simulations.engines.faults import OUTLIVES
from fedcad.simulations.engines.flower import PartitionedApp

FAULTS = [
    {"kind": "drop", "site": "site-1", "rounds": [1]},
    {"kind": "delay", "site": "site-2", "rounds": [1], "delay_s": 4000.0},
    {"kind": "nan", "site": "site-1", "rounds": [2]},
    {"kind": "die", "site": "site-3", "rounds": [2]},
    {"kind": "wrong-shape", "site": "site-2", "rounds": [3]},
    {"kind": "stale-round", "site": "site-3", "rounds": [3]},
    {"kind": "die", "site": "site-1", "rounds": [4]},
]


def simulate(folder, engine):
    """Run ``fedcad simulate`` in a process of its own: Ray changes the process it lives in."""
    subprocess.run(
        [
            *(sys.executable, "-m", "fedcad.shared.cli", "simulate", str(folder / "simulation.yaml")),
            *("--out", str(folder / engine), "--archives", str(folder / "archives"), "--engine", engine),
        ],
        check=True,
        capture_output=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return tiny_study.read(folder / engine)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [[], FAULTS], ids=["healthy", "faulty"])
def test_both_engines_agree(tmp_path, faults):
    tiny_study.write_files(
        tmp_path,
        study=tiny_study.study_plain(rounds=5 if faults else 2),
        simulation=tiny_study.simulation_plain(faults=faults, baselines={"alone": False, "pooled": False}),
    )
    here, there = simulate(tmp_path, "in-process"), simulate(tmp_path, "flower")
    assert here.results["model_sha256"] == there.results["model_sha256"]
    assert tiny_study.without_times(here) == tiny_study.without_times(there)
    if faults:
        counted = [
            sum(part["status"] == "counted" for part in event["participation"])
            for event in tiny_study.rounds_of(here)
        ]
        assert counted == [1, 1, 1, 2, 3]


def test_a_partition_answers_as_its_node(tmp_path):
    from flwr.app import Context, Message, RecordDict

    from fedcad.client.workbench import freeze
    from fedcad.shared.flower_internals.messages import enter_task, name_message
    from fedcad.shared.flower_records import read_site_info
    from fedcad.simulations.runs import SimulatedSite

    archives = tiny_study.build_archives(tmp_path / "archives", patients=20, sites=2)
    freeze(tiny_study.make_study()).save(tmp_path / "contract")
    nodes = [
        SimulatedSite(name, (str(archive.site_file),)).node_config(tmp_path / "contract", tmp_path / "state")
        for name, archive in archives.items()
    ]
    app = PartitionedApp(nodes)
    enter_task()
    for number, name in enumerate(archives):
        message = Message(RecordDict(), 1, "query.ready")
        name_message(message, f"m{number}")
        context = Context(1, number, {"partition-id": number, "num-partitions": 2}, RecordDict(), {})
        assert read_site_info(app(message, context).content).site == name
        assert context.node_config[OUTLIVES] is True
    assert Path(nodes[0]["contract"]).is_dir()
