"""The committed files that are made from the configuration models: schemas and reference.

``python -m fedcad.shared.config.generated`` writes them anew; a test fails while they are stale.
"""

import json
from pathlib import Path

import fedcad.configs
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.reference import reference_markdown
from fedcad.shared.config.schema import ROOTS, Kind, schema_of


def schema_text(kind: Kind) -> str:
    """Return one kind's JSON Schema as it is committed and printed."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def generated_files() -> dict[str, str]:
    """Return the text of each generated file by its path below the folder ``configs``."""
    schemas = {f"schemas/{kind}.schema.json": schema_text(kind) for kind in ROOTS}
    return {**schemas, "README.md": reference_markdown()}


def configs_folder() -> Path:
    """Return the folder ``configs`` of this installation."""
    return Path(fedcad.configs.__path__[0])


def main() -> None:
    """Write every generated file."""
    for name, text in generated_files().items():
        path = configs_folder() / name
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, text.encode("utf-8"))


if __name__ == "__main__":
    main()
