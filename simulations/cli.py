"""``fedcad simulate`` and ``fedcad compare``."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fedcad.shared.config.load import load_simulation_with_study
from fedcad.shared.errors import CheckpointError
from fedcad.simulations.datasets.registry import open_data_set
from fedcad.simulations.engines.early import collector_off, start_fork_server


def simulate(
    config: Annotated[Path, typer.Argument(help="Simulation file, for instance configs/simulations/….yaml.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data set, where the file needs one.")
    ] = None,
    engine: Annotated[
        Literal["in-process", "flower", "deployment"] | None,
        typer.Option(help="How to run; the results are the same. Default: what the file says."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run. Default: runs/<name>/<date and time>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    archives: Annotated[
        Path | None,
        typer.Option(
            help="Folder where emulated hospitals are kept between runs. Default: ~/.cache/fedcad/archives."
        ),
    ] = None,
) -> None:
    """Run a study on emulated hospitals on this machine.

    Splits a data set into hospitals, gives each its own DICOM archive, trains one model over all of them
    with the code that real hospitals run, trains each hospital alone and all data pooled for comparison, and
    writes a report that says whether each hospital gained.

    The run folder holds report.html, results.json, model.safetensors, checkpoints and a log of every round.
    An interrupted run goes on with --out FOLDER --resume and gives the same result.
    """
    simulation, study = load_simulation_with_study(config)
    open_data_set(simulation.data, data)  # refuses a wrong --data at once
    if engine is not None:
        chosen = simulation.engine.model_copy(update={"name": engine})
        simulation = simulation.model_copy(update={"engine": chosen})
    if resume and out is None:
        raise CheckpointError(f"--resume: {_which_run(Path('runs') / simulation.name)}")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / simulation.name / stamp
    root = archives or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fedcad" / "archives"
    console = Console()
    console.print(f"Run folder: {folder}", highlight=False, soft_wrap=True, markup=False)
    with _ctrl_c_ignored():
        start_fork_server()  # while it imports, Ctrl-C would make it print a traceback
    # Imported late: these load torch and Flower, which takes seconds; --help and mistakes need not wait.
    with collector_off():
        from fedcad.simulations.simulate import Places, simulate_file

    places = Places(out=folder, archives=root, data=data)
    try:
        simulate_file(simulation, study, places=places, resume=resume, console=console)
    except KeyboardInterrupt:
        typer.echo(f"To go on: {_continuation(config, data=data, out=folder, archives=archives)}", err=True)
        raise


def _which_run(runs: Path) -> str:
    """Ask for the run to go on with, and name the latest."""
    found = sorted(path.parent for path in runs.glob("*/configuration.json"))
    latest = f"the latest is --out {found[-1]}" if found else f"there is none in {runs}"
    return f"say which run with --out FOLDER; {latest}"


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, here and in processes that are started meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _continuation(config: Path, *, data: Path | None, out: Path, archives: Path | None) -> str:
    """Return the command that goes on with an interrupted run."""
    called = Path(sys.argv[0])
    words = [str(called) if called.name == "fedcad" else "fedcad", "simulate", str(config)]
    for option, folder in (("--data", data), ("--archives", archives), ("--out", out)):
        words += [option, str(folder)] if folder is not None else []
    return shlex.join([*words, "--resume"])


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write compare.html and compare.png into this folder.")
    ] = None,
) -> None:
    """Put several finished runs side by side, as a table and a plot.

    Says where the runs cannot be compared, for instance because their test cases differ.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; give a folder for --out")
    from fedcad.simulations.report.compare import compare_runs

    console = Console()
    compare_runs(runs, out, console)
    if out is not None:
        files = f"{out / 'compare.html'}, {out / 'compare.png'}"
        console.print(f"Written: {files}", highlight=False, soft_wrap=True, markup=False)
