"""JSON Schemas of the configuration files, for editors (the YAML extension of VS Code and others)."""

from typing import Any, Literal

from fedcad.shared.config.consortium import ConsortiumConfig
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.config.study import StudyConfig

Kind = Literal["study", "simulation", "site", "consortium"]

ROOTS: dict[Kind, type[Frozen]] = {
    "study": StudyConfig,
    "simulation": SimulationConfig,
    "site": SiteConfig,
    "consortium": ConsortiumConfig,
}


def schema_of(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one kind of file.

    Unknown keys are errors in it, and listed values complete. Rules between keys (fractions that add up to 1,
    epochs or steps) are beyond JSON Schema; ``fedcad check`` has them.
    """
    schema = ROOTS[kind].model_json_schema(mode="validation")
    schema["title"] = f"FedCAD {kind} file"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
