import pytest
import torch
from study_factory import LAYOUT

from fedcad.shared.algorithms.averaging import Averaging
from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.config.study import FedAvgConfig


def test_both_halves_must_be_written() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Averaging(FedAvgConfig(name="fedavg"))  # type: ignore[abstract]


@pytest.mark.parametrize(("weighting", "weight"), [("cases", 12), ("uniform", 1)])
def test_weights_are_cases_or_one(weighting: str, weight: int) -> None:
    config = FedAvgConfig.model_validate({"name": "fedavg", "weighting": weighting})
    assert FedAvg(config).weights(12) == {"model": weight}


def test_only_a_copy_of_the_model_travels_and_sites_keep_nothing() -> None:
    algorithm = FedAvg(FedAvgConfig(name="fedavg"))
    initial = torch.zeros(LAYOUT.size)
    state = algorithm.init_server(initial, LAYOUT)
    initial += 1.0
    assert algorithm.broadcast(state)["model"].tolist() == [0.0] * LAYOUT.size
    assert algorithm.sizes(LAYOUT) == {"model": LAYOUT.size}
    assert algorithm.personal(LAYOUT) == frozenset()
    assert algorithm.init_site(LAYOUT) == {}
