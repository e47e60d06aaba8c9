from typing import Any

import pytest

from fedcad.shared.config.contradictions import contradictions
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.study import StudyConfig


def study(*, quorum: int = 1, minimum_patients: int = 1) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "s",
            "task": {"kind": "classification", "classes": ["normal", "opacity"]},
            "data": {"minimum_patients": minimum_patients},
            "preprocessing": {"size": 64},
            "model": {"name": "covid-net"},
            "training": {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_epochs": 1},
            "algorithm": {"name": "fedavg"},
            "rounds": 5,
            "participation": {"quorum": quorum},
        }
    )


def simulation(**changes: Any) -> SimulationConfig:
    base = {
        "name": "s",
        "study": "s.yaml",
        "data": {"kind": "phantom", "patients": 100, "classes": ["normal", "opacity"]},
        "partition": {"kind": "dirichlet", "sites": 4, "alpha": 1.0},
    }
    return SimulationConfig.model_validate({**base, **changes})


def test_none() -> None:
    assert list(contradictions(simulation(), study(quorum=4))) == []


def test_order_of_classes_is_the_studys_alone() -> None:
    data = {"kind": "phantom", "patients": 100, "classes": ["opacity", "normal"]}
    assert list(contradictions(simulation(data=data), study())) == []


def test_medmnist_classes() -> None:
    data = {"kind": "medmnist", "file": "x.npz", "classes": ["normal", "pneumonia"]}
    assert list(contradictions(simulation(data=data), study())) == [
        (
            ("data", "classes"),
            "got normal, pneumonia; the study's task.classes are normal, opacity; "
            "name the same classes in both",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "external", "left_out"),
    [
        ({"partition": {"kind": "iid", "sites": 3}}, 0, 0),
        ({"partition": {"kind": "quantity", "sites": 3}}, 0, 0),
        ({"partition": {"kind": "feature-shift", "sites": 3}}, 0, 0),
        ({"external_sites": ["site-0"]}, 1, 0),
        ({"leave_one_site_out": True}, 0, 1),
    ],
)
def test_quorum_that_no_round_can_reach(changes: dict[str, Any], external: int, left_out: int) -> None:
    ((path, text),) = contradictions(simulation(**changes), study(quorum=4))
    assert path == ("partition", "sites")
    sites = changes.get("partition", {"sites": 4})["sites"]
    assert text == (
        f"got {sites} sites, of which {external} external and {left_out} left out at a time; the study's "
        "participation.quorum is 4, so no round could close; give more sites or lower it"
    )
    assert list(contradictions(simulation(**changes), study(quorum=3))) == []


@pytest.mark.parametrize("kind", [{"kind": "folder"}, {"kind": "column", "column": "site"}])
def test_nothing_is_said_where_only_the_data_know(kind: dict[str, str]) -> None:
    given = simulation(data={"kind": "image-folder"}, partition=kind, external_sites=("a", "b"))
    assert list(contradictions(given, study(quorum=50))) == []


def test_too_few_patients_for_the_quorum_wherever_the_sites_come_from() -> None:
    vendors = {"kind": "acquisition", "attribute": "vendor"}
    data = {"kind": "phantom", "patients": 39, "classes": ["normal", "opacity"]}
    few = simulation(data=data, partition=vendors, minimum_patients=20)
    ((path, text),) = contradictions(few, study(quorum=2))
    assert path == ("data", "patients")
    assert text.endswith("allowed: at least 40")


def test_too_few_patients_for_the_quorum() -> None:
    data = {"kind": "phantom", "patients": 59, "classes": ["normal", "opacity"]}
    ((path, text),) = contradictions(
        simulation(data=data, minimum_patients=10), study(quorum=3, minimum_patients=20)
    )
    assert path == ("data", "patients")
    assert text == (
        "got 59; 3 sites of at least 20 patients are needed (quorum, external and left-out sites); "
        "allowed: at least 60"
    )
    enough = {**data, "patients": 60}
    assert list(contradictions(simulation(data=enough), study(quorum=3, minimum_patients=20))) == []


def test_external_sites() -> None:
    found = dict(contradictions(simulation(external_sites=("a", "b", "a")), study()))
    assert found == {("external_sites", 2): "got 'a' a second time; allowed: each site once; remove it"}
    found = dict(contradictions(simulation(external_sites=("a", "b", "c", "d")), study()))
    assert found == {
        ("external_sites",): "got 4 external sites of 4; allowed: fewer, so that a site is left to train"
    }


def test_faults_that_never_happen() -> None:
    faults = [{"kind": "drop", "site": "a", "rounds": [5, 6]}, {"kind": "die", "site": "b", "rounds": [1]}]
    found = dict(contradictions(simulation(faults=faults, external_sites=("b",)), study()))
    assert found == {
        ("faults", 0, "rounds", 1): "got 6; the study has 5 rounds; allowed: at most 5",
        ("faults", 1, "site"): "got 'b', an external site, which never trains; allowed: a site that trains",
    }
