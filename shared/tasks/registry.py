"""Which task a study has."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import UnsupportedError
from fedcad.shared.tasks.classification import Classification
from fedcad.shared.tasks.interface import Task

TASKS: Mapping[str, Callable[[StudyConfig], Task]] = MappingProxyType({"classification": Classification})


def task_for(study: StudyConfig) -> Task:
    """Return the task of a study.

    Raises:
        UnsupportedError: No task is entered for its kind.
    """
    task = TASKS.get(study.task.kind)
    if task is None:
        raise UnsupportedError(f"task.kind is {study.task.kind!r}; this version has {', '.join(TASKS)}")
    return task(study)
