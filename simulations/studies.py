"""The studies that a simulation compares: the federated one, and what each comparison changes in it."""

from collections.abc import Sequence
from dataclasses import replace

from fedcad.client.workbench import freeze
from fedcad.shared.config.study import FedAvgConfig, ParticipationConfig, StudyConfig, TrainingConfig
from fedcad.shared.contract import Contract
from fedcad.shared.layout import Role


def federated(study: StudyConfig, seed: int) -> Contract:
    """Freeze the study under one seed."""
    return freeze(study.model_copy(update={"seed": seed}))


def has_personal(contract: Contract) -> bool:
    """Whether entries of the study's model stay at the sites, so that a model is whole only at its sites."""
    return any(entry.role is Role.LOCAL for entry in contract.layout.entries)


def alone(contract: Contract) -> Contract:
    """The same study for one site: its own steps, its own selection, nothing averaged."""
    return _with(contract, training={})


def pooled(contract: Contract, cases: Sequence[int]) -> Contract:
    """The same study on all cases in one place, with the federation's number of case passes.

    Args:
        contract: The federated study.
        cases: Training cases of each site, all at least 1.

    Guarantees:
        A round draws the same number of cases with epochs; with steps, no number of steps comes closer.
    """
    training = contract.study.training
    if training.local_steps is None:
        return _with(contract, training={})
    wanted = sum(draws(training, each) for each in cases)
    return _with(contract, training={"local_steps": _steps_for(wanted, sum(cases), training.batch_size)})


def draws(training: TrainingConfig, cases: int) -> int:
    """Return how many cases a site draws in one round, where one drawn twice counts twice.

    Every pass over n cases is ceil(n / batch size) steps, of which the last one may be short.
    """
    if training.local_epochs is not None:
        return training.local_epochs * cases
    passes, rest = divmod(training.local_steps or 0, -(-cases // training.batch_size))
    return passes * cases + rest * training.batch_size


def case_passes(contract: Contract, cases: Sequence[int]) -> dict[str, float]:
    """Return how often the average case is drawn in all rounds, federated and pooled, if no site is lost."""
    rounds, total = contract.study.rounds, sum(cases)
    federated = sum(draws(contract.study.training, each) for each in cases)
    together = draws(pooled(contract, cases).study.training, total)
    return {"federated": rounds * federated / total, "pooled": rounds * together / total}


def _steps_for(wanted: int, cases: int, batch_size: int) -> int:
    """Return the number of steps, at least 1, that comes closest to drawing the wanted number of cases."""
    passes, rest = divmod(wanted, cases)
    fewer = passes * -(-cases // batch_size) + rest // batch_size
    below, step = rest % batch_size, min(batch_size, cases - rest // batch_size * batch_size)
    return max(fewer + (2 * below > step), 1)


def without_one(contract: Contract, remaining: int) -> Contract:
    """The same study with one site fewer."""
    rule = contract.study.participation
    quorum = min(rule.quorum, remaining)
    study = contract.study.model_copy(update={"participation": rule.model_copy(update={"quorum": quorum})})
    return replace(contract, study=study)


def _with(contract: Contract, training: dict[str, object]) -> Contract:
    """One participant: FedAvg over one site is plain training, whatever the federated algorithm.

    All of its model travels, so that it can be tested at every site.
    """
    study = contract.study
    changed = study.model_copy(
        update={
            "algorithm": FedAvgConfig(name="fedavg"),
            "participation": ParticipationConfig(quorum=1, deadline_s=study.participation.deadline_s),
            "training": study.training.model_copy(update=training),
        }
    )
    return freeze(changed) if has_personal(contract) else replace(contract, study=changed)
