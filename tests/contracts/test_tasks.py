"""What every task must do: add a study for a new task to STUDIES.

Training, privacy, evaluation and findings rely on these properties and on nothing else.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import DataError
from fedcad.shared.tasks.interface import Batch, Findings, Task
from fedcad.shared.tasks.registry import TASKS, task_for

CASES = 5
SIZE = 32


def study_of(model: dict[str, Any], classes: list[str], **training: Any) -> StudyConfig:
    """A small study of classification."""
    return StudyConfig.model_validate(
        {
            "name": "contract",
            "task": {"kind": "classification", "classes": classes},
            "preprocessing": {"size": SIZE},
            "model": model,
            "training": {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_epochs": 1, **training},
            "algorithm": {"name": "fedavg"},
            "rounds": 1,
        }
    )


CNN = {"name": "cnn", "convolutions": [{"features": 4}, {"features": 8}], "fully_connected": [8]}
STUDIES = {
    "classification-cnn": study_of(
        CNN, ["normal", "pneumonia", "covid19"], class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1
    ),
    "classification-shallow": study_of({"name": "logistic-regression"}, ["normal", "covid19"]),
}


@pytest.fixture(params=list(STUDIES))
def study(request: pytest.FixtureRequest) -> StudyConfig:
    return STUDIES[request.param]


@pytest.fixture
def task(study: StudyConfig) -> Task:
    return task_for(study)


@pytest.fixture
def networks(task: Task) -> dict[str, nn.Module]:
    """Networks a little away from their start, where some say the same of every case."""
    torch.manual_seed(1)
    networks = task.networks()
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return networks


@pytest.fixture
def batch(task: Task, study: StudyConfig) -> Batch:
    """Cases of every class, labelled as the label table does."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(CASES, 1, SIZE, SIZE, generator=generator)
    names = [study.task.classes[case % len(study.task.classes)] for case in range(CASES)]
    return Batch({"image": images}, task.targets(names))


def evaluating(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: network.eval() for name, network in networks.items()}


def with_other_cases(batch: Batch, kept: int) -> Batch:
    """The same case `kept` among images and targets that all belong to other cases."""

    def exchange(values: Tensor) -> Tensor:
        exchanged = values.roll(1, dims=0) * (2 if values.is_floating_point() else 1)
        exchanged[kept] = values[kept]
        return exchanged

    return Batch(
        {name: exchange(values) for name, values in batch.inputs.items()},
        {name: exchange(values) for name, values in batch.targets.items()},
    )


def gradients_of(loss: Tensor, networks: dict[str, nn.Module], names: tuple[str, ...]) -> list[Tensor]:
    parameters = [p for name in names for p in networks[name].parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters))


def test_every_kind_of_task_is_under_contract() -> None:
    assert {study.task.kind for study in STUDIES.values()} == set(TASKS)


def test_objectives_name_networks_that_exist(task: Task, networks: dict[str, nn.Module]) -> None:
    for objective in task.objectives():
        assert objective.networks
        assert set(objective.networks) <= set(networks)
        assert objective.interval >= 1


def test_networks_depend_on_the_global_generator_alone(task: Task) -> None:
    torch.manual_seed(1)
    first = task.networks()
    torch.manual_seed(1)
    again = task.networks()
    assert list(again) == list(first)
    for name, network in first.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(again[name].state_dict()[key], value, rtol=0, atol=0)


def test_losses_are_one_finite_number_for_each_case(
    task: Task, networks: dict[str, nn.Module], batch: Batch
) -> None:
    for objective in task.objectives():
        losses = objective.losses(networks, batch)
        assert losses.shape == (CASES,)
        assert losses.dtype == torch.float32
        assert torch.isfinite(losses).all()


@pytest.mark.parametrize("kept", range(CASES))
def test_loss_and_gradient_of_a_case_know_no_other_case(
    task: Task, networks: dict[str, nn.Module], batch: Batch, kept: int
) -> None:
    changed = with_other_cases(batch, kept)
    for objective in task.objectives():
        before, after = (objective.losses(networks, cases) for cases in (batch, changed))
        assert not torch.allclose(before, after)
        torch.testing.assert_close(before[kept], after[kept])
        first = gradients_of(before[kept], networks, objective.networks)
        second = gradients_of(after[kept], networks, objective.networks)
        assert any(gradient.abs().max() > 0 for gradient in first)
        torch.testing.assert_close(first, second)


def test_loss_of_a_case_does_not_depend_on_the_batch_size(
    task: Task, networks: dict[str, nn.Module], batch: Batch
) -> None:
    alone = Batch(
        {name: values[:1] for name, values in batch.inputs.items()},
        {name: values[:1] for name, values in batch.targets.items()},
    )
    for objective in task.objectives():
        together = objective.losses(networks, batch)
        torch.testing.assert_close(objective.losses(networks, alone), together[:1])


def test_predictions_are_distributions_and_leave_networks_alone(
    task: Task, networks: dict[str, nn.Module], batch: Batch
) -> None:
    before = {
        f"{name}.{key}": value.clone()
        for name, n in networks.items()
        for key, value in n.state_dict().items()
    }
    outputs = task.predict(evaluating(networks), batch.inputs)
    assert outputs.shape[0] == CASES
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs.sum(dim=1), torch.ones(CASES))
    for name, network in networks.items():
        assert not network.training
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, before[f"{name}.{key}"], rtol=0, atol=0)


def test_statistics_accept_predictions_and_labels(
    task: Task, networks: dict[str, nn.Module], batch: Batch
) -> None:
    with torch.no_grad():
        outputs = task.predict(evaluating(networks), batch.inputs).numpy()
    weights = np.array([[1] * CASES, [0, 1, 2, 0, 1]])
    statistics = task.collect(outputs, batch.targets, weights)
    assert statistics.shape == (2, task.statistics.size)
    assert statistics.dtype == np.int64
    metrics = task.statistics.metrics(statistics[0])
    values = task.statistics.primary_values(statistics)
    assert metrics[task.statistics.primary].value == values[0]
    assert np.isfinite(task.statistics.loss(statistics[0]))


def test_findings_agree_with_predictions(task: Task, networks: dict[str, nn.Module], batch: Batch) -> None:
    with torch.no_grad():
        outputs = task.predict(evaluating(networks), batch.inputs)
    for case in range(CASES):
        findings = task.infer(networks, {name: values[case] for name, values in batch.inputs.items()})
        assert isinstance(findings, Findings)
        found = torch.tensor(list(findings.probabilities.values()))
        torch.testing.assert_close(found, outputs[case], rtol=1e-5, atol=1e-6)


def test_unknown_labels_are_refused_with_the_allowed_ones(task: Task, study: StudyConfig) -> None:
    with pytest.raises(DataError, match=study.task.classes[0]):
        task.targets([study.task.classes[0], "no such label"])


def test_targets_are_those_of_each_case_in_order(task: Task, batch: Batch, study: StudyConfig) -> None:
    assert batch.targets
    for case in range(CASES):
        alone = task.targets([study.task.classes[case % len(study.task.classes)]])
        assert list(alone) == list(batch.targets)
        for name, values in alone.items():
            assert values.dtype == batch.targets[name].dtype
            assert torch.equal(values[0], batch.targets[name][case])


def test_no_labels_give_targets_of_the_same_names_and_types(task: Task, batch: Batch) -> None:
    none = task.targets([])
    assert {name: values.dtype for name, values in none.items()} == {
        name: values.dtype for name, values in batch.targets.items()
    }
    assert all(len(values) == 0 for values in none.values())
