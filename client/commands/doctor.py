"""``fedcad client doctor``."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def doctor(
    folder: Annotated[
        Path, typer.Argument(help="The hospital's folder, with site.yaml.", show_default=False)
    ],
    study: Annotated[
        Path | None,
        typer.Option(
            help="Also try this study: a study file, or the contract.json that the coordinator sent.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write the list as JSON, for programs.")] = False,
) -> None:
    """Check whether this hospital's node can work: a list with what to do about each problem.

    Looks at the machine, the keys and permissions, the way to the coordinator, the archive and the labels;
    with --study also at the cases that the study would get, and takes a few real training steps. Changes
    nothing and sends nothing about a patient anywhere.

    Run it as the account that runs the node. The exit code is 0 for GO and 1 for NO-GO; warnings are GO.
    """
    # Imported late: torch and pydicom take seconds; --help and mistakes need not wait.
    from fedcad.client.doctor.check import examine
    from fedcad.client.doctor.checklist import Trial, checks_of
    from fedcad.client.doctor.premises import Premises
    from fedcad.client.doctor.progress import Progress
    from fedcad.client.doctor.report import is_go, json_report, print_report
    from fedcad.client.doctor.study_file import load_study_file

    if not folder.is_dir():
        raise typer.BadParameter(
            f"{folder} is not a folder; make one with: fedcad client init {folder}", param_hint="FOLDER"
        )
    trial = Trial(study, load_study_file(study)) if study is not None else None
    with Progress(Console(stderr=True)) as progress:
        results = examine(checks_of(Premises(folder), os.environ, trial), progress)
    if json:
        typer.echo(json_report(results), nl=False)
    else:
        notes = [] if study else ["To try a study as well: --study FILE (cases, memory, time of a round)."]
        print_report(results, Console(highlight=False), notes)
    if not is_go(results):
        raise typer.Exit(1)
