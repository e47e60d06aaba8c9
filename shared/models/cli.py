"""The command ``fedcad models``: which networks there are, and what a study's network is made of."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fedcad.shared.config.study import StudyConfig
    from fedcad.shared.models.summary import ModelSummary

_LIST_SIZE = 128
_LIST_CLASSES = 3


def models(
    study: Annotated[
        Path | None,
        typer.Argument(help="Study file whose network is shown layer by layer.", metavar="[STUDY.yaml]"),
    ] = None,
) -> None:
    """List the networks that a study can name, or show one study's network layer by layer.

    MACs are multiply-accumulates for one image; 1 GMAC is 10⁹.
    """
    # Imported here: torch takes a second that `fedcad --help` should not cost.
    from rich.console import Console

    if study is None:
        Console().print(_list_of_networks())
        return
    _refuse_network_name(study)
    from fedcad.shared.config.load import load_study

    Console().print(_layers_of_study(load_study(study)))


def _refuse_network_name(study: Path) -> None:
    """Say how a network is named, where its name was given in place of a file."""
    from fedcad.shared.errors import ConfigError
    from fedcad.shared.models.registry import NETWORKS

    name = str(study)
    if name in NETWORKS and not study.exists():
        raise ConfigError(
            f"{name}: this is a network, and a study file was expected. Write the network into a study "
            f"(model: {{name: {name}}}) and give that file; `fedcad models` alone lists all networks"
        )


def _list_of_networks() -> "Table":
    """Return all networks with the size of their default form."""
    from rich.table import Table

    from fedcad.shared.models.registry import NETWORKS, build_model
    from fedcad.shared.models.summary import summarise

    table = Table(
        title=f"Networks, default knobs, {_LIST_CLASSES} classes, 1 × {_LIST_SIZE} × {_LIST_SIZE} pixels"
    )
    table.add_column("model.name")
    table.add_column("What it is")
    table.add_column("Parameters", justify="right")
    table.add_column("MACs", justify="right")
    for name, entry in NETWORKS.items():
        model = build_model(entry.example, classes=_LIST_CLASSES, size=_LIST_SIZE)
        summary = summarise(model, _LIST_SIZE)
        table.add_row(name, entry.description, f"{summary.parameters:,}", f"{summary.macs:,}")
    return table


def _layers_of_study(study: "StudyConfig") -> "Table":
    """Return the layers of a study's network."""
    from fedcad.shared.models.registry import build_model
    from fedcad.shared.models.summary import summarise

    size = study.preprocessing.size
    model = build_model(study.model, classes=len(study.task.classes), size=size)
    title = f"{study.name}: {study.model.name}, 1 × {size} × {size} pixels, {len(study.task.classes)} classes"
    return _layers(summarise(model, size), title=title)


def _layers(summary: "ModelSummary", *, title: str) -> "Table":
    """Return a summary as a table, totals last."""
    from rich.table import Table

    table = Table(title=title, show_footer=True)
    table.add_column("Layer", footer="Total")
    table.add_column("Kind", footer=f"{len(summary.layers)} layers")
    table.add_column("Output", justify="right")
    table.add_column("Parameters", justify="right", footer=f"{summary.parameters:,}")
    table.add_column("MACs", justify="right", footer=f"{summary.macs:,}")
    for row in summary.layers:
        shape = " × ".join(str(length) for length in row.output_shape)
        table.add_row(row.name, row.kind, shape, f"{row.parameters:,}", f"{row.macs:,}")
    return table
