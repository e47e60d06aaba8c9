from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import fedcad.configs
from fedcad.shared.config.schema import ROOTS, schema_of
from fedcad.shared.config.yaml_document import read_document

CONFIGS = Path(fedcad.configs.__path__[0])
STUDY = CONFIGS / "studies" / "chest-xray-phantom.yaml"


def validator(kind: Any) -> jsonschema.Draft202012Validator:
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("kind", list(ROOTS))
def test_schema_is_valid_and_describes_itself(kind: Any) -> None:
    validator(kind)
    schema = schema_of(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"FedCAD {kind} file"
    objects = [schema, *(one for one in schema.get("$defs", {}).values() if one["type"] == "object")]
    for one in objects:
        assert one["additionalProperties"] is False
        assert one["description"]
        # Pydantic leaves a description out where it is that of the mapping referred to.
        assert all("description" in inner or "$ref" in inner for inner in one["properties"].values())


@pytest.mark.parametrize("folder", ["studies", "simulations", "sites", "consortia"])
def test_shipped_files_satisfy_their_schema(folder: str) -> None:
    checker = validator(
        {"studies": "study", "simulations": "simulation", "sites": "site", "consortia": "consortium"}[folder]
    )
    paths = list((CONFIGS / folder).glob("*.yaml"))
    assert paths
    for path in paths:
        assert list(checker.iter_errors(read_document(path).value)) == []


def test_schema_flags_what_an_editor_should_flag() -> None:
    checker = validator("study")
    good = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    for wrong in (
        {**good, "privcy": {}},
        {**good, "rounds": "3"},
        {**good, "rounds": 0},
        {**good, "model": {"name": "cn"}},
        {**good, "model": {"name": "covid-net", "features": 3}},
        {key: value for key, value in good.items() if key != "task"},
    ):
        assert list(checker.iter_errors(wrong))


def test_values_complete() -> None:
    definitions = schema_of("study")["$defs"]
    assert definitions["OptimizerConfig"]["properties"]["name"]["enum"] == ["sgd", "adam", "adamw"]
    assert definitions["CovidNet"]["properties"]["name"]["const"] == "covid-net"
