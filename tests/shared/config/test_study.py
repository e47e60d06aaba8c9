from typing import Any

import pytest
from pydantic import ValidationError

from fedcad.shared.config.study import StudyConfig

STUDY: dict[str, Any] = {
    "name": "example",
    "task": {"kind": "classification", "classes": ["normal", "nodule"]},
    "preprocessing": {"size": 64},
    "model": {"name": "covid-net"},
    "training": {
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "batch_size": 8,
        "local_epochs": 1,
    },
    "algorithm": {"name": "fedavg"},
    "rounds": 3,
}


def with_training(**changes: Any) -> dict[str, Any]:
    return STUDY | {"training": STUDY["training"] | changes}


def test_a_study_needs_little() -> None:
    study = StudyConfig.model_validate(STUDY)
    assert study.privacy.mechanism == "none"
    assert study.evaluation.selection == "best_validation"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (STUDY | {"task": {"kind": "classification", "classes": ["a", "a"]}}, "classes must be distinct"),
        (STUDY | {"data": {"split": {"train": 0.5, "validation": 0.2, "test": 0.2}}}, "must be 1"),
        (STUDY | {"data": {"split": {"train": 0.0, "validation": 0.5, "test": 0.5}}}, "train is 0"),
        (
            STUDY | {"data": {"split": {"train": 0.8, "validation": 0.0, "test": 0.2}}},
            "validation patients or select last_round",
        ),
        (with_training(local_steps=3), "exactly one of local_epochs and local_steps"),
        (with_training(local_epochs=None), "exactly one of local_epochs and local_steps"),
        (with_training(class_weights=[1.0, 0.0]), "class_weights must all be above 0"),
        (with_training(class_weights=[1.0, 1.0, 1.0]), "3 values for 2 classes"),
        (
            with_training(optimizer={"name": "adam", "learning_rate": 0.1, "momentum": 0.9}),
            "momentum belongs to sgd",
        ),
        (STUDY | {"privacy": {"mechanism": "patient"}}, "not yet available"),
        (
            STUDY
            | {
                "model": {"name": "covid-net", "norm": "batch"},
                "algorithm": {
                    "name": "fedopt",
                    "server_optimizer": {"name": "adam", "learning_rate": 0.1},
                },
            },
            "running variances",
        ),
        (
            STUDY | {"model": {"name": "logistic-regression"}, "algorithm": {"name": "fedbn"}},
            "logistic-regression as configured has none; set model.norm",
        ),
        (
            STUDY | {"model": {"name": "covid-net", "norm": "none"}, "algorithm": {"name": "fedbn"}},
            "covid-net as configured has none",
        ),
        (
            with_training(optimizer={"name": "adam", "learning_rate": 0.1})
            | {"algorithm": {"name": "scaffold"}},
            "scaffold with training.optimizer adam of momentum 0: .*set training.optimizer.name sgd",
        ),
        (
            with_training(optimizer={"name": "sgd", "learning_rate": 0.1, "momentum": 0.5})
            | {"algorithm": {"name": "scaffold"}},
            "of momentum 0.5: .*momentum 0",
        ),
        (
            STUDY | {"algorithm": {"name": "scaffold"}, "exchange": {"precision": "float16"}},
            "set exchange.precision float32",
        ),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StudyConfig.model_validate(values)
