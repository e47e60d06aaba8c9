"""Which statistics a study's task has. The coordinator asks here: nothing below imports a model."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import UnsupportedError
from fedcad.shared.metrics.classification import ClassificationStatistics
from fedcad.shared.metrics.interface import StatisticsFamily


def _classification(study: StudyConfig) -> StatisticsFamily:
    """Statistics of softmax classification."""
    return ClassificationStatistics(study.task.classes, study.evaluation.score_bins)


FAMILIES: Mapping[str, Callable[[StudyConfig], StatisticsFamily]] = MappingProxyType(
    {"classification": _classification}
)


def statistics_for(study: StudyConfig) -> StatisticsFamily:
    """Return the statistics family of a study's task.

    Raises:
        UnsupportedError: No family is entered for the kind of task.
    """
    family = FAMILIES.get(study.task.kind)
    if family is None:
        raise UnsupportedError(
            f"task.kind is {study.task.kind!r}; this version has statistics for {', '.join(FAMILIES)}"
        )
    return family(study)
