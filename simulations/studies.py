"""The studies that a simulation compares: the federated one, and what each comparison changes in it."""

from collections.abc import Sequence

from fedcad.client.workbench import freeze
from fedcad.shared.config.study import FedAvgConfig, ParticipationConfig, StudyConfig
from fedcad.shared.contract import Contract


def federated(study: StudyConfig, seed: int) -> Contract:
    """Freeze the study under one seed."""
    return freeze(study.model_copy(update={"seed": seed}))


def alone(contract: Contract) -> Contract:
    """The same study for one site: its own steps, its own selection, nothing averaged."""
    return _with(contract, training={})


def pooled(contract: Contract, sites: Sequence[str]) -> Contract:
    """The same study on all cases in one place, with the same number of case passes as the federation."""
    steps = contract.study.training.local_steps
    return _with(contract, training={"local_steps": steps * len(sites)} if steps else {})


def without_one(contract: Contract, remaining: int) -> Contract:
    """The same study with one site fewer."""
    rule = contract.study.participation
    quorum = min(rule.quorum, remaining)
    study = contract.study.model_copy(update={"participation": rule.model_copy(update={"quorum": quorum})})
    return Contract(study, contract.layout, contract.initial)


def _with(contract: Contract, training: dict[str, object]) -> Contract:
    """One participant: FedAvg over one site is plain training, whatever the federated algorithm."""
    study = contract.study
    changed = study.model_copy(
        update={
            "algorithm": FedAvgConfig(name="fedavg"),
            "participation": ParticipationConfig(quorum=1, deadline_s=study.participation.deadline_s),
            "training": study.training.model_copy(update=training),
        }
    )
    return Contract(changed, contract.layout, contract.initial)
