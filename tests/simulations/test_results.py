import json

import pytest
import tiny_study

from fedcad.shared.canonical import canonical_json
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import SiteInfo
from fedcad.simulations import studies
from fedcad.simulations.results import assemble, describe_site, environment, outcome_of, write_json

OUTCOME = {"status": "stopped", "reason": "why", "model_sha256": "0" * 64, "rounds_closed": 1}
SUMMARY = {
    "parts": {
        part: {"patients": count, "cases": count, "labels": {"normal": count}}
        for part, count in (("train", 3), ("validation", 1), ("test", 2))
    },
    "vendors": {"A": 6},
    "views": {"PA": 6},
    "rejects": {"no label": 1},
}


def test_a_run_that_has_not_ended_has_no_outcome(tmp_path):
    with pytest.raises(CheckpointError, match="--resume"):
        outcome_of(tmp_path)


def test_site_is_described_by_counts():
    info = SiteInfo(
        site="a",
        study_hash="0" * 64,
        cases={"train": 3, "validation": 1, "test": 2},
        summary=canonical_json(SUMMARY).decode(),
    )
    found = describe_site(info, is_external=True)
    assert found["role"] == "external"
    assert found["patients"] == {"train": 3, "validation": 1, "test": 2}
    assert found["labels"]["test"] == {"normal": 2}
    assert found["acquisition"] == {"vendor": {"A": 6}, "view": {"PA": 6}}
    assert found["rejects"] == {"no label": 1}
    assert describe_site(info, is_external=False)["role"] == "training"


def test_stopped_run_has_results_without_evaluations():
    contract = studies.federated(tiny_study.make_study(), 7)
    found = assemble(
        tiny_study.make_simulation(),
        contract,
        outcome=OUTCOME,
        sites=[],
        excluded=[("b", "too small")],
        tests=None,
    )
    assert found["seed"] == 7
    assert (found["status"], found["reason"], found["rounds_planned"]) == ("stopped", "why", 2)
    assert found["evaluations"] == found["comparisons"] == []
    assert found["excluded_sites"] == [{"name": "b", "reason": "too small"}]
    assert found["parameters"] == contract.layout.trained_size
    json.dumps(found, allow_nan=False)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


def test_environment_names_what_decides_the_last_bits():
    found = environment()
    assert {"fedcad", "python", "torch", "numpy", "cpu_capability"} <= set(found)
    assert all(isinstance(value, str) for value in found.values())
