"""The command ``fedcad study freeze``: from a study file to a contract, where the models are installed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from fedcad.client.workbench import freeze as freeze_study
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.config.load import load_study
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError, ConfigError

LINEAGE = "lineage.json"


def freeze(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the contract; made if absent.")] = Path("contract"),
    initial: Annotated[
        Path | None,
        typer.Option(
            help="Start from this model (model.safetensors of an earlier study) instead of the seed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Freeze a study into a contract: its networks' layout, norms and initial parameters, with one hash.

    Run it where the models are installed (any hospital node or researcher's machine has them). The
    coordinator, which never builds a model, then submits the folder: fedcad server submit CONSORTIUM FOLDER.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; give an empty or new folder with --out")
    contract = freeze_study(load_study(study))
    initial_from = ""
    if initial is not None:
        contract = replace(contract, initial=read_initial(initial, contract))
        digest = hash_of_vectors({"model": contract.initial.numpy()})
        initial_from = f"the model {initial.name} with model_sha256 {digest}"
    contract.save(out)
    write_bytes(out / LINEAGE, json.dumps({"initial_from": initial_from}).encode())
    typer.echo(f"study          {contract.study.name}")
    typer.echo(f"contract       {out}")
    typer.echo(f"study hash     {contract.study_hash}")
    typer.echo(f"parameters     {contract.layout.size:,} exchanged, {contract.layout.trained_size:,} trained")
    typer.echo(f"starts from    {initial_from or 'the seed of the study'}")
    typer.echo(f"\nnext: fedcad server submit CONSORTIUM {out}")


def read_initial(path: Path, contract: Contract) -> Tensor:
    """Read named tensors as the exchanged vector of a contract's layout.

    Returns:
        float32, shape (layout.size,).

    Raises:
        CheckpointError: The file cannot be read, or its tensors are not those of the layout.
    """
    try:
        tensors = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the model cannot be read: {error}") from error
    parts = []
    for entry in contract.layout.exchanged:
        tensor = tensors.pop(entry.name, None)
        if tensor is None or tuple(tensor.shape) != entry.shape:
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
            raise CheckpointError(
                f"{path}: {entry.name} {found}; the study's model needs {entry.shape}. Use a model that was "
                "trained with the same networks"
            )
        parts.append(tensor.reshape(-1).float())
    if tensors:
        raise CheckpointError(
            f"{path}: the study's model has no {sorted(tensors)[0]!r}; use the same networks"
        )
    vector = torch.cat(parts)
    if not torch.isfinite(vector).all():
        raise CheckpointError(f"{path}: the model holds NaN or infinity")
    return vector
