"""The commands ``fedcad schema`` and ``fedcad check``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.generated import schema_text
from fedcad.shared.config.load import (
    load_consortium,
    load_simulation_with_study,
    load_site,
    load_study,
)
from fedcad.shared.config.schema import Kind
from fedcad.shared.config.yaml_document import read_document

_LONGEST_TEXT = 100
_LOADERS: dict[Kind, Callable[[Path], Frozen]] = {
    "study": load_study,
    "site": load_site,
    "consortium": load_consortium,
}


def schema(
    kind: Annotated[Kind, typer.Argument(help="Which file the schema describes.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of the terminal.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of a study, simulation, site or consortium file, for completion in an editor.

    A YAML file names it in its first line: # yaml-language-server: $schema=study.schema.json
    """
    text = schema_text(kind)
    if out is None:
        typer.echo(text, nl=False)
        return
    if not out.parent.is_dir() or out.is_dir():
        raise typer.BadParameter(
            f"{out} cannot be written; give a file in an existing folder", param_hint="--out"
        )
    write_bytes(out, text.encode("utf-8"))


def check(
    file: Annotated[
        Path, typer.Argument(help="A study, simulation, site or consortium file (YAML).", show_default=False)
    ],
    kind: Annotated[
        Kind | None, typer.Option(help="Kind of file; guessed from its keys if absent.", show_default=False)
    ] = None,
) -> None:
    """Check a configuration file: print it with all defaults filled in, or every mistake with its line."""
    kind = kind or guess_kind(read_document(file).value)
    console = Console(soft_wrap=True, highlight=False)
    if kind == "simulation":
        simulation, study = load_simulation_with_study(file)
        _print_summary(console, kind, file, simulation)
        console.print()
        _print_summary(console, "study", Path(os.path.normpath(file.parent / simulation.study)), study)
    else:
        _print_summary(console, kind, file, _LOADERS[kind](file))


def guess_kind(keys: dict[str, Any]) -> Kind:
    """Tell what kind of file has these root keys: what only that kind has decides, else it is a study."""
    if {"partition", "study", "faults", "baselines"} & keys.keys():
        return "simulation"
    if {"archive", "state", "labels"} & keys.keys():
        return "site"
    if {"address", "listen", "control_port"} & keys.keys():
        return "consortium"
    return "study"


def _print_summary(console: Console, kind: Kind, file: Path, config: Frozen) -> None:
    console.print(Text.assemble((f"{file}", "bold"), f" is a valid {kind} file", style=""))
    rows = list(_rows(config, ""))
    width = max(len(key) for key, _, _ in rows)
    for key, value, given in rows:
        note = "" if given else "  (default)"
        console.print(Text.assemble(f"  {key:<{width}}  {value}", (note, "dim")))


def _rows(config: Frozen, prefix: str) -> list[tuple[str, str, bool]]:
    """Flatten a model into key, value and whether the file gave it."""
    rows: list[tuple[str, str, bool]] = []
    for name in type(config).model_fields:
        value = getattr(config, name)
        key = f"{prefix}{name}"
        given = name in config.model_fields_set
        if isinstance(value, Frozen):
            rows += [(inner, text, given and known) for inner, text, known in _rows(value, f"{key}.")]
        elif isinstance(value, tuple) and any(isinstance(item, Frozen) for item in value):
            for position, item in enumerate(value):
                rows += _rows(item, f"{key}[{position}].")
        else:
            rows.append((key, _text(value), given))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
