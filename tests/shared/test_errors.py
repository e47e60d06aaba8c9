"""The error tree: everything that is raised on purpose can be caught in one place, and is drawn."""

import inspect

import pytest

from fedcad.shared import errors

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_is_a_fedcad_error_that_is_explained_and_drawn(error: type[Exception]) -> None:
    assert issubclass(error, errors.FedCADError)
    assert error.__doc__
    assert error.__name__ in (errors.__doc__ or "")


def test_programmers_mistakes_are_not_among_them() -> None:
    assert not issubclass(errors.FedCADError, ValueError | TypeError | OSError | RuntimeError)


def test_an_archive_error_is_a_data_error() -> None:
    assert issubclass(errors.ArchiveError, errors.DataError)
