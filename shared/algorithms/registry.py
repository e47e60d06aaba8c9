"""Which class runs which algorithm of a study file. Adding one: its file, its config class, a line here."""

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.algorithms.fedopt import FedOpt
from fedcad.shared.algorithms.fedprox import FedProx
from fedcad.shared.algorithms.interface import Algorithm
from fedcad.shared.config.study import AlgorithmConfig, FedAvgConfig, FedProxConfig


def algorithm_for(config: AlgorithmConfig) -> Algorithm:
    """Return the algorithm that a study names."""
    if isinstance(config, FedAvgConfig):
        return FedAvg(config)
    if isinstance(config, FedProxConfig):
        return FedProx(config)
    return FedOpt(config)
