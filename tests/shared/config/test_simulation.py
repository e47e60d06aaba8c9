import pytest
from pydantic import ValidationError

from fedcad.shared.config.simulation import FaultConfig, SimulationConfig

SIMULATION = {
    "name": "example",
    "study": "study.yaml",
    "data": {"kind": "phantom", "patients": 30},
    "partition": {"kind": "iid", "sites": 3},
}


def test_defaults_compare_with_alone_and_pooled_in_process() -> None:
    config = SimulationConfig.model_validate(SIMULATION)
    assert config.baselines.alone
    assert config.baselines.pooled
    assert config.engine.name == "in-process"
    assert config.seeds == (1,)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": []},
        {"data": {"kind": "phantom", "patients": 30, "classes": ["normal"]}},
        {"partition": {"kind": "dirichlet", "sites": 3}},
        {"partition": {"kind": "dirichlet", "sites": 3, "alpha": 0.0}},
        {"partition": {"kind": "quantity", "sites": 3, "ratio": 1.5}},
        {"engine": {"name": "ray"}},
        {"external_sites": ["Not A Site"]},
    ],
)
def test_impossible_simulations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SimulationConfig.model_validate(SIMULATION | change)


@pytest.mark.parametrize(
    ("kind", "delay", "message"),
    [
        ("delay", None, "kind 'delay' needs delay_s, for instance"),
        ("drop", 3.0, "belongs to kind 'delay' alone; remove it from kind 'drop'"),
    ],
)
def test_delay_and_its_seconds_belong_together(kind: str, delay: float | None, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FaultConfig.model_validate({"kind": kind, "site": "a", "rounds": [1], "delay_s": delay})


def test_rounds_of_faults_count_from_one() -> None:
    with pytest.raises(ValidationError):
        FaultConfig.model_validate({"kind": "drop", "site": "a", "rounds": [0]})
