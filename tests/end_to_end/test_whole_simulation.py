"""A whole simulation: results, log, model and report tell one story."""

import hashlib
import json

import numpy as np
import pytest
import tiny_study
from safetensors.numpy import load

from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Contract

MODELS = {
    "federated",
    "pooled",
    "ensemble",
    "alone-site-1",
    "alone-site-2",
    "without-site-1",
    "without-site-2",
}


def test_results_are_complete(finished):
    results = finished.results
    assert results["status"] == "completed"
    assert results["rounds_closed"] == results["rounds_planned"] == 2
    assert [(site["name"], site["role"]) for site in results["sites"]] == [
        ("site-1", "training"),
        ("site-2", "training"),
        ("site-3", "external"),
    ]
    assert {evaluation["model"] for evaluation in results["evaluations"]} == MODELS
    for model in MODELS:
        places = [each["on"] for each in results["evaluations"] if each["model"] == model]
        assert places == ["site-1", "site-2", "site-3", "union", "external sites"]
    assert {each["against"] for each in results["comparisons"]} == {"alone", "ensemble", "pooled", "without"}
    assert results["case_passes"] == {"federated": 2.0, "pooled": 2.0}
    assert results["excluded_sites"] == []


def test_every_patient_is_at_one_place(finished):
    patients = [sum(site["patients"].values()) for site in finished.results["sites"]]
    assert sum(patients) == 60
    external = finished.results["sites"][2]
    assert external["patients"]["train"] == external["patients"]["validation"] == 0


def test_results_agree_with_the_log(finished):
    rounds = tiny_study.rounds_of(finished)
    assert [event["round"] for event in rounds] == [1, 2]
    train = {site["name"]: site["cases"]["train"] for site in finished.results["sites"]}
    for event in rounds:
        assert [(part["site"], part["status"]) for part in event["participation"]] == [
            ("site-1", "counted"),
            ("site-2", "counted"),
        ]
        assert all(part["weight"] == train[part["site"]] for part in event["participation"])
    validations = [event for event in finished.events if event["event"] == "validation"]
    assert [event["version"] for event in validations] == [0, 1, 2]
    best = min(validations, key=lambda event: event["union"]["loss"])
    assert finished.results["selected_version"] == best["version"]


def test_model_file_is_the_selected_model(finished):
    contract = Contract.load(finished.folder / "contract")
    tensors = load((finished.folder / "model.safetensors").read_bytes())
    flat = np.concatenate([tensors[entry.name].reshape(-1) for entry in contract.layout.exchanged])
    assert hash_of_vectors({"model": flat}) == finished.results["model_sha256"]


def test_union_is_the_sum_of_training_sites(finished):
    federated = {e["on"]: e for e in finished.results["evaluations"] if e["model"] == "federated"}
    accuracy = {place: each["metrics"]["accuracy"]["value"] for place, each in federated.items()}
    sites = [site for site in finished.results["sites"] if site["role"] == "training"]
    cases = {site["name"]: site["cases"]["test"] for site in sites}
    right = sum(accuracy[site] * cases[site] for site in cases)
    assert accuracy["union"] == pytest.approx(right / sum(cases.values()))
    assert str(sum(cases.values())) in federated["union"]["metrics"]["accuracy"]["denominator"]
    assert accuracy["external sites"] == accuracy["site-3"]


def test_report_and_configuration_are_there(finished):
    html = (finished.folder / "report.html").read_text()
    assert "site-3" in html
    configuration = json.loads((finished.folder / "configuration.json").read_text())
    assert configuration["study"]["name"] == "tiny"
    assert json.loads((finished.folder / "environment.json").read_text())["torch"]
    assert "Report:" in finished.printed


def test_nothing_of_a_patient_is_in_the_run_folder(finished, archives):
    names = {path.name for path in archives.glob("*/dicom/*")}
    assert len(names) == 60
    for path in finished.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".html"):
            text = path.read_text()
            assert not [name for name in names if name in text], path


def test_same_simulation_gives_the_same_bits_whatever_the_workers(tmp_path, archives, finished):
    hashes = set()
    for workers in (1, 3):
        simulation = tiny_study.make_simulation(
            leave_one_site_out=True, external_sites=["site-3"], engine={"workers": workers}
        )
        run = tiny_study.simulate(tmp_path / str(workers), archives=archives, simulation=simulation)
        hashes.add(run.results["model_sha256"])
        assert tiny_study.without_times(run) == tiny_study.without_times(finished)
    assert hashes == {finished.results["model_sha256"]}


def test_seeds_give_a_folder_each(tmp_path, archives):
    simulation = tiny_study.make_simulation(seeds=[1, 2], baselines={"alone": False, "pooled": False})
    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        tiny_study.simulate(folder, archives=archives, simulation=simulation, report=True)
    first, second = (tiny_study.read(folder / f"seed-{seed}") for seed in (1, 2))
    assert first.results["model_sha256"] != second.results["model_sha256"]
    assert (first.results["seed"], second.results["seed"]) == (1, 2)
    assert (folder / "seed-2" / "report.html").exists()
    again = [hashlib.sha256((folder / "configuration.json").read_bytes()).hexdigest()]
    again.append(hashlib.sha256((folder / "seed-1" / "configuration.json").read_bytes()).hexdigest())
    assert len(set(again)) == 1
