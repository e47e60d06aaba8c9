"""Every algorithm that a study file can name has a class."""

from typing import Any, get_args

import pytest

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.fedbn import FedBN
from fedcad.shared.algorithms.fedopt import FedOpt
from fedcad.shared.algorithms.fedprox import FedProx
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.algorithms.scaffold import Scaffold
from fedcad.shared.config.study import (
    AlgorithmConfig,
    FedAvgConfig,
    FedBNConfig,
    FedOptConfig,
    FedProxConfig,
    ScaffoldConfig,
)

SGD: Any = {"name": "sgd", "learning_rate": 1.0}
CLASSES: list[tuple[Any, type]] = [
    (FedAvgConfig(name="fedavg"), FedAvg),
    (FedProxConfig(name="fedprox", proximal_mu=0.1), FedProx),
    (FedOptConfig.model_validate({"name": "fedopt", "server_optimizer": SGD}), FedOpt),
    (ScaffoldConfig(name="scaffold"), Scaffold),
    (FedBNConfig(name="fedbn"), FedBN),
]


@pytest.mark.parametrize(("config", "expected"), CLASSES)
def test_each_configuration_gives_its_class(config: Any, expected: type) -> None:
    assert type(algorithm_for(config)) is expected


def test_every_configuration_of_a_study_is_here() -> None:
    union = get_args(AlgorithmConfig)[0]
    assert {type(config) for config, _ in CLASSES} == set(get_args(union))


def test_a_configuration_of_nothing_is_not_taken_for_the_last_one() -> None:
    with pytest.raises(AssertionError):
        algorithm_for(SGD)
