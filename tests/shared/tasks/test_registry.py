"""The task of a study."""

import pytest

from fedcad.shared.config.study import StudyConfig, TaskConfig
from fedcad.shared.errors import UnsupportedError
from fedcad.shared.metrics.registry import FAMILIES
from fedcad.shared.tasks.classification import Classification
from fedcad.shared.tasks.registry import TASKS, task_for

STUDY = StudyConfig.model_validate(
    {
        "name": "registry",
        "task": {"kind": "classification", "classes": ["normal", "covid19"]},
        "preprocessing": {"size": 32},
        "model": {"name": "logistic-regression"},
        "training": {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_epochs": 1},
        "algorithm": {"name": "fedavg"},
        "rounds": 1,
    }
)


def test_classification_is_found() -> None:
    assert isinstance(task_for(STUDY), Classification)


def test_tasks_and_statistics_have_the_same_kinds() -> None:
    assert set(TASKS) == set(FAMILIES)


def test_unknown_kind_names_the_known_ones() -> None:
    task = TaskConfig.model_construct(kind="detection", classes=("a", "b"))
    with pytest.raises(UnsupportedError, match="'detection'; this version has classification"):
        task_for(STUDY.model_copy(update={"task": task}))
