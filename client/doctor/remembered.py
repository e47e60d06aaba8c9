"""A value that several checks need and that is found once, or the reason why it cannot be found."""

from collections.abc import Callable
from typing import Generic, TypeVar

from fedcad.shared.errors import FedCADError

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Finds a value when first asked; an error that says why not is remembered as well.

    Why not functools.cache: it forgets errors, and a firewall that drops packets would be waited for by
    every check anew.
    """

    def __init__(self, find: Callable[[], Value]) -> None:
        """Take how the value is found."""
        self._find = find
        self._values: list[Value] = []
        self._error: FedCADError | OSError | None = None

    def __call__(self) -> Value:
        """Return the value.

        Raises:
            FedCADError: As raised the first time.
            OSError: As raised the first time.
        """
        if self._error is not None:
            raise self._error
        if not self._values:
            try:
                self._values.append(self._find())
            except (FedCADError, OSError) as error:
                self._error = error
                raise
        return self._values[0]
