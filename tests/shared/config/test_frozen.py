import pytest
from pydantic import ValidationError

from fedcad.shared.config.frozen import Frozen


class Example(Frozen):
    """Something with one number."""

    rate: float = 1.0
    """A rate."""


def test_models_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().rate = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("values", [{"rat": 1.0}, {"rate": "1.0"}, {"rate": True}])
def test_unknown_keys_and_other_types_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Example.model_validate(values)


def test_docstrings_become_descriptions() -> None:
    assert Example.model_json_schema()["properties"]["rate"]["description"] == "A rate."
