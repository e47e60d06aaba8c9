"""Which class runs which algorithm of a study file. Adding one: its file, its config class, a line here."""

from typing import assert_never

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.fedbn import FedBN
from fedcad.shared.algorithms.fedopt import FedOpt
from fedcad.shared.algorithms.fedprox import FedProx
from fedcad.shared.algorithms.interface import Algorithm
from fedcad.shared.algorithms.scaffold import Scaffold
from fedcad.shared.config.study import (
    AlgorithmConfig,
    FedAvgConfig,
    FedBNConfig,
    FedOptConfig,
    FedProxConfig,
    ScaffoldConfig,
)


def algorithm_for(config: AlgorithmConfig) -> Algorithm:
    """Return the algorithm that a study names; type checkers refuse a configuration without a line here."""
    if isinstance(config, FedAvgConfig):
        return FedAvg(config)
    if isinstance(config, FedProxConfig):
        return FedProx(config)
    if isinstance(config, FedOptConfig):
        return FedOpt(config)
    if isinstance(config, ScaffoldConfig):
        return Scaffold(config)
    if isinstance(config, FedBNConfig):
        return FedBN(config)
    assert_never(config)
