"""The statistics of a study."""

import subprocess
import sys

import pytest

from fedcad.shared.config.study import StudyConfig, TaskConfig
from fedcad.shared.errors import UnsupportedError
from fedcad.shared.metrics.classification import ClassificationStatistics
from fedcad.shared.metrics.registry import FAMILIES, statistics_for

STUDY = StudyConfig.model_validate(
    {
        "name": "registry",
        "task": {"kind": "classification", "classes": ["normal", "covid19"]},
        "preprocessing": {"size": 32},
        "model": {"name": "logistic-regression"},
        "training": {"optimizer": {"learning_rate": 0.1}, "batch_size": 4, "local_epochs": 1},
        "algorithm": {"name": "fedavg"},
        "rounds": 1,
        "evaluation": {"score_bins": 32},
    }
)


def test_classification_gets_its_classes_and_bins() -> None:
    statistics = statistics_for(STUDY)
    assert isinstance(statistics, ClassificationStatistics)
    assert statistics.classes == ("normal", "covid19")
    assert statistics.score_bins == 32
    assert statistics.size == 4 + 2 * 2 * 32 + 48


def test_every_kind_of_task_that_a_study_may_name_has_statistics() -> None:
    schema = TaskConfig.model_json_schema()["properties"]["kind"]
    assert set(schema.get("enum", [schema.get("const")])) == set(FAMILIES)


def test_unknown_kind_names_the_known_ones() -> None:
    task = TaskConfig.model_construct(kind="detection", classes=("a", "b"))
    with pytest.raises(UnsupportedError, match="'detection'; this version has statistics for classification"):
        statistics_for(STUDY.model_copy(update={"task": task}))


def test_no_model_or_task_is_imported() -> None:
    code = (
        "import sys, fedcad.shared.metrics.registry; "
        "unwanted = ('fedcad.shared.models', 'fedcad.shared.tasks', 'monai'); "
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
