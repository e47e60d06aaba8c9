"""One version of flwr, and names that must exist before they are replaced."""

from importlib.metadata import version
from typing import Any

from fedcad.shared.errors import UnsupportedError

FLOWER_VERSION = "1.41.0"


def require_flower() -> None:
    """Refuse to run on a flwr whose inside is not known.

    Raises:
        UnsupportedError: Another version of flwr is installed.
    """
    installed = version("flwr")
    if installed != FLOWER_VERSION:
        raise UnsupportedError(
            f"flwr {installed} is installed; this version of FedCAD works with flwr {FLOWER_VERSION} only. "
            f"Install it: pip install flwr=={FLOWER_VERSION}"
        )


def replace(module: Any, name: str, value: Any) -> Any:
    """Put a value in the place of a module's name; return what was there.

    Raises:
        UnsupportedError: flwr has no such name: it is not the version that this was written for.
    """
    if not hasattr(module, name):
        raise UnsupportedError(
            f"flwr has no {module.__name__}.{name}; this FedCAD works with flwr {FLOWER_VERSION} only"
        )
    previous = getattr(module, name)
    setattr(module, name, value)
    return previous
