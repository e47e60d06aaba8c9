"""The classification task: loss by hand, findings, labels."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import DataError
from fedcad.shared.tasks.classification import Classification
from fedcad.shared.tasks.interface import Batch

CLASSES = ("normal", "pneumonia", "covid19")


def make_task(**training: Any) -> Classification:
    """A three-class task whose training section has some keys changed."""
    return Classification(
        StudyConfig.model_validate(
            {
                "name": "classification",
                "task": {"kind": "classification", "classes": CLASSES},
                "preprocessing": {"size": 32},
                "model": {"name": "logistic-regression", "grid": 2, "histogram_bins": 4},
                "training": {
                    "optimizer": {"name": "adam", "learning_rate": 0.01},
                    "batch_size": 4,
                    "local_epochs": 1,
                    **training,
                },
                "algorithm": {"name": "fedavg"},
                "rounds": 1,
            }
        )
    )


def identity() -> dict[str, nn.Module]:
    """A classifier whose logits are the image: three pixels."""
    return {"classifier": nn.Flatten().eval()}


def batch_of(logits: list[list[float]], labels: list[int]) -> Batch:
    image = torch.tensor(logits).reshape(-1, 1, 1, 3)
    return Batch({"image": image}, {"label": torch.tensor(labels)})


def losses_of(task: Classification, batch: Batch) -> torch.Tensor:
    (objective,) = task.objectives()
    return objective.losses(identity(), batch)


LOG = [math.log(0.5), math.log(0.25), math.log(0.25)]


def test_cross_entropy_by_hand() -> None:
    losses = losses_of(make_task(), batch_of([LOG, LOG], [0, 1]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log(4)])


def test_class_weights_multiply_and_are_never_normalised() -> None:
    task = make_task(class_weights=(1.0, 2.0, 5.0))
    losses = losses_of(task, batch_of([LOG, LOG, LOG], [0, 1, 2]))
    assert losses.tolist() == pytest.approx([math.log(2), 2 * math.log(4), 5 * math.log(4)])


def test_label_smoothing_by_hand_and_weighted_as_a_whole() -> None:
    task = make_task(class_weights=(1.0, 2.0, 5.0), label_smoothing=0.3)
    smooth = 0.1 * (math.log(2) + math.log(4) + math.log(4))
    losses = losses_of(task, batch_of([LOG, LOG], [0, 1]))
    assert losses.tolist() == pytest.approx([0.7 * math.log(2) + smooth, 2 * (0.7 * math.log(4) + smooth)])


def test_objective_names_network_and_optimizer() -> None:
    (objective,) = make_task().objectives()
    assert objective.networks == ("classifier",)
    assert objective.optimizer.name == "adam"
    assert objective.interval == 1


def test_half_precision_logits_are_widened_before_softmax_and_loss() -> None:
    task = make_task()
    image = torch.tensor([20.0, 0.0, -20.0], dtype=torch.bfloat16).reshape(1, 1, 1, 3)
    batch = Batch({"image": image}, {"label": torch.tensor([2])})
    assert task.predict(identity(), batch.inputs).dtype == torch.float32
    losses = losses_of(task, batch)
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(40.0)


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3))
def test_findings_are_the_softmax_by_name(logits: list[float]) -> None:
    findings = make_task().infer(identity(), {"image": torch.tensor(logits).reshape(1, 1, 3)})
    assert tuple(findings.probabilities) == CLASSES
    expected = functional.softmax(torch.tensor(logits), dim=0).tolist()
    assert list(findings.probabilities.values()) == pytest.approx(expected, abs=1e-7)


def test_network_in_training_mode_is_refused() -> None:
    networks: dict[str, nn.Module] = {"classifier": nn.Sequential(nn.Flatten(), nn.Dropout(0.5))}
    task = make_task()
    with pytest.raises(ValueError, match="call eval"):
        task.predict(networks, {"image": torch.zeros(1, 1, 1, 3)})
    with pytest.raises(ValueError, match="call eval"):
        task.infer(networks, {"image": torch.zeros(1, 1, 3)})


def test_labels_are_numbered_in_the_order_of_the_study() -> None:
    assert [make_task().parse_label(name) for name in CLASSES] == [0, 1, 2]
    targets = make_task().targets([CLASSES[2], CLASSES[0], CLASSES[2]])
    assert list(targets) == ["label"]
    assert targets["label"].dtype == torch.int64
    assert targets["label"].tolist() == [2, 0, 2]
    assert make_task().targets([])["label"].dtype == torch.int64


@pytest.mark.parametrize("label", ["COVID19", "covid19 ", "", "2", "tuberculosis"])
def test_other_labels_are_named_beside_the_allowed_ones(label: str) -> None:
    with pytest.raises(DataError) as caught:
        make_task().parse_label(label)
    assert repr(label) in str(caught.value)
    assert "normal, pneumonia, covid19" in str(caught.value)


def test_endless_labels_are_cut() -> None:
    with pytest.raises(DataError) as caught:
        make_task().parse_label("x" * 100_000)
    assert len(str(caught.value)) < 300


def test_network_fits_the_study_and_follows_the_global_generator() -> None:
    task = make_task()
    torch.manual_seed(3)
    first = task.networks()
    torch.manual_seed(3)
    second = task.networks()
    assert list(first) == ["classifier"]
    assert first["classifier"](torch.rand(2, 1, 32, 32)).shape == (2, 3)
    for name, tensor in first["classifier"].state_dict().items():
        torch.testing.assert_close(tensor, second["classifier"].state_dict()[name], rtol=0, atol=0)
