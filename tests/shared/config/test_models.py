import pytest
from pydantic import TypeAdapter, ValidationError

from fedcad.shared.config.models import CovidNet, ModelConfig
from fedcad.shared.models.registry import NETWORKS

ADAPTER: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


def test_every_configured_network_can_be_built() -> None:
    tags = {
        choice["properties"]["name"]["const"]
        for choice in ADAPTER.json_schema()["$defs"].values()
        if "const" in choice["properties"].get("name", {})
    }
    assert tags == set(NETWORKS)


def test_the_name_chooses_the_branch() -> None:
    config = ADAPTER.validate_python({"name": "covid-net", "form": "large"})
    assert isinstance(config, CovidNet)
    assert (config.form, config.norm) == ("large", "group")


@pytest.mark.parametrize(
    "values",
    [
        {"name": "cnn", "convolutions": []},
        {"name": "cnn", "convolutions": [{"features": 0}]},
        {"name": "cnn", "convolutions": [{"features": 8}], "dropout": 1.0},
        {"name": "covid-net", "grid": 8},
        {"name": "resnet19"},
    ],
)
def test_impossible_networks_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(values)
