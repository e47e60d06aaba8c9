"""The command ``fedcad client result``: the hospital's copy of a finished study's model, verified."""

from pathlib import Path
from typing import Annotated

import typer

from fedcad.client.hospital import Hospital
from fedcad.client.results import MODEL, SiteResult, results
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import ConfigError


def result(
    folder: Annotated[Path, typer.Argument(help="The site's folder.", exists=True, file_okay=False)],
    study: Annotated[
        str | None, typer.Argument(help="Name of the study; without it, all are listed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Copy the model into this new file.")] = None,
) -> None:
    """Show how a finished study's model does on this hospital's own test cases, and copy the model.

    The model is checked against the coordinator's signature before anything is shown.
    """
    hospital = Hospital.load(folder)
    found = list(results(hospital.state, hospital.enrolment().coordinator_key))
    if study is None:
        for each in found:
            typer.echo(f"{each.study:<30} {each.model_sha256[:16]}  {each.cases} test cases here")
        if not found:
            typer.echo("no study has ended yet; its model comes by itself at its end")
        return
    chosen = [each for each in found if each.study == study]
    if not chosen:
        names = ", ".join(sorted({each.study for each in found})) or "none so far"
        raise ConfigError(f"there is no result of a study {study!r}; there are: {names}")
    _show(chosen[-1])
    if out is not None:
        _copy(chosen[-1], out)


def _show(result: SiteResult) -> None:
    typer.echo(f"study          {result.study}")
    typer.echo(f"study hash     {result.study_hash}")
    typer.echo(f"model_sha256   {result.model_sha256}  (signed by the coordinator: verified)")
    typer.echo(f"model          {result.model}")
    typer.echo(f"test cases     {result.cases} of this hospital")
    for name, value in result.metrics.items():
        shown = "undefined" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        typer.echo(f"  {name:<24} {shown}")
    typer.echo("For research only; not for clinical use.")


def _copy(result: SiteResult, out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} exists; give the name of a new file, such as {MODEL}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.absolute().parent}: no such folder; make it first")
    write_bytes(out, result.model.read_bytes())
    typer.echo(f"copied to      {out}")
