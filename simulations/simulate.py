"""The whole of ``fedcad simulate``: folders, workers, one run for each seed, reports."""

import csv
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fedcad.shared.atomic_files import remove_leftovers
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import CheckpointError, DataError, QuorumError
from fedcad.simulations.datasets.rejection import Rejection
from fedcad.simulations.engines.pool import WorkerPool, default_workers
from fedcad.simulations.engines.simulated_client import make_simulated_app
from fedcad.simulations.hospitals import Hospitals, build_hospitals
from fedcad.simulations.progress import Display, make_display
from fedcad.simulations.report.run_folder import read_run
from fedcad.simulations.report.terminal import print_summary
from fedcad.simulations.report.write import write_report
from fedcad.simulations.results import write_json
from fedcad.simulations.runner import SimulationRun

_CONFIGURATION = "configuration.json"
_ARCHIVES = "archives.json"
_LEFT_OUT = "left-out.csv"
_LOCK = ".lock"


@dataclass(frozen=True)
class Places:
    """Folders of a simulation.

    Attributes:
        out: The run's folder.
        archives: Where emulated hospitals are kept between runs.
        data: The data set, where one is needed.
    """

    out: Path
    archives: Path
    data: Path | None = None


def simulate_file(
    config: SimulationConfig,
    study: StudyConfig,
    *,
    places: Places,
    resume: bool,
    console: Console,
) -> None:
    """Run a simulation under each of its seeds and write the reports.

    Several seeds give one run folder each, ``seed-<number>``, below the run's folder.

    Raises:
        CheckpointError: The run's folder holds another run.
        DataError: The data cannot be used.
        QuorumError: A federated run stopped; its folder and report are written all the same.
    """
    torch.set_num_threads(1)
    out = places.out
    folders = {seed: out if len(config.seeds) == 1 else out / f"seed-{seed}" for seed in config.seeds}
    with _claimed(out, config, study, resume=resume) as is_new:
        if is_new and resume:
            console.print(f"{out} holds no run to go on with: it starts from the beginning", highlight=False)
        stopped = _run_all(config, study, folders=folders, places=places, console=console, is_new=is_new)
        for seed, folder in folders.items():
            report = write_report(folder)
            if len(folders) > 1:
                console.print(f"\nSeed {seed}", style="bold", highlight=False)
            print_summary(read_run(folder), console)
            console.print(f"Report: {report}", highlight=False, soft_wrap=True)
    if stopped:
        raise QuorumError(stopped[0])


def _run_all(
    config: SimulationConfig,
    study: StudyConfig,
    *,
    folders: Mapping[int, Path],
    places: Places,
    console: Console,
    is_new: bool,
) -> list[str]:
    """Run under each seed and return why runs stopped, if any did."""
    stopped = []
    with make_display(console) as display:
        with _withdrawn_if_refused([*folders.values(), places.out] if is_new else []):
            hospitals = build_hospitals(
                config, data=places.data, root=places.archives, progress=display.update
            )
            _claim_data(places.out, hospitals)
        _tell(hospitals, places.out, display)
        with WorkerPool(make_simulated_app, config.engine.workers or default_workers()) as pool:
            for seed, folder in folders.items():
                if len(folders) > 1:
                    display.say(f"seed {seed}")
                run = SimulationRun(config, study, hospitals=hospitals, pool=pool, display=display)
                results = run.run(folder, seed)
                if seed == config.seeds[0]:
                    _tell_refusals(results, display)
                if results["status"] != "completed":
                    stopped.append(results["reason"])
    return stopped


def _tell(hospitals: Hospitals, out: Path, display: Display) -> None:
    """Show what was made of the data, and list what was left out of them."""
    for note in hospitals.notes:
        display.say(f"  note: {note}")
    if _list_left_out(out, hospitals.rejected):
        display.say(f"  all that was left out: {out / _LEFT_OUT}")


@contextmanager
def _claimed(out: Path, config: SimulationConfig, study: StudyConfig, *, resume: bool) -> Iterator[bool]:
    """Make the run folder, hold it alone, and only then look at what it holds.

    Yields:
        Whether the folder holds no run yet.
    """
    _make_folder(out)
    if _is_foreign(out):  # asked before the lock is put there
        raise CheckpointError(f"{out} is not empty and holds no run; choose another folder for --out")
    with _locked(out):
        remove_leftovers(out)
        yield _claim(out, config, study, resume=resume)


def _is_foreign(out: Path) -> bool:
    """Whether a folder holds something but no run; the traces of a claim that was killed do not count."""
    if (out / _CONFIGURATION).exists():
        return False
    return any(
        path.name != _LOCK and not path.name.startswith(f".{_CONFIGURATION}.") for path in out.iterdir()
    )


def _tell_refusals(results: Mapping[str, Any], display: Display) -> None:
    """Show what the sites themselves refused, such as labels that the study does not name."""
    for site in results["sites"]:
        reasons = [
            f"{number} {reason.replace('_', ' ')}" for reason, number in sorted(site["rejects"].items())
        ]
        if reasons:
            display.say(f"  {site['name']} did not use: {', '.join(reasons)}")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a run folder, so that no second process goes on with a run that is still going.

    The kernel drops the lock when the process ends, however it ends.
    """
    with (out / _LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{out}: another process is working on this run; wait for it, or choose another --out"
            ) from error
        yield


@contextmanager
def _withdrawn_if_refused(claimed: Sequence[Path]) -> Iterator[None]:
    """Give up folders when the data turn out to be unusable, so that the command can be given again."""
    try:
        yield
    except DataError:
        for folder in claimed:
            for name in (_CONFIGURATION, _ARCHIVES, _LOCK):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # gone already, or holds something else
                folder.rmdir()
        raise


def _claim(out: Path, config: SimulationConfig, study: StudyConfig, *, resume: bool) -> bool:
    """Write into the run folder what it is for, or check that it holds this very simulation.

    The engine may change between start and resume; nothing else may.

    Returns:
        Whether the folder holds no run yet.
    """
    plain = {"simulation": config.model_dump(mode="json"), "study": study.model_dump(mode="json")}
    path = out / _CONFIGURATION
    is_new = not path.exists()
    if not is_new and not resume:
        raise CheckpointError(f"{out} holds a run; add --resume to go on with it, or choose another --out")
    if not is_new and _without_engine(_read_json(path)) != _without_engine(plain):
        raise CheckpointError(f"{out} holds a run of another configuration; choose another --out")
    write_json(path, plain)
    for seed_folder in [out] if len(config.seeds) == 1 else [out / f"seed-{seed}" for seed in config.seeds]:
        seed_folder.mkdir(parents=True, exist_ok=True)
        write_json(seed_folder / _CONFIGURATION, plain)
    return is_new


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; give a folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be made ({error.strerror}); choose another --out") from error


def _claim_data(out: Path, hospitals: Hospitals) -> None:
    """Remember which archives the run is on, or check that they are the same: ``--data`` may have changed."""
    path = out / _ARCHIVES
    plain = {name: archive.folder.name for name, archive in sorted(hospitals.archives.items())}
    if path.exists() and _read_json(path) != plain:
        raise CheckpointError(
            f"{out} holds a run on other data; give the --data that it was started with, or another --out"
        )
    write_json(path, plain)


def _list_left_out(out: Path, rejected: Sequence[Rejection]) -> bool:
    """List every entry of the data set that was left out; no file where there is none."""
    if not rejected:
        return False
    with (out / _LEFT_OUT).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "reason"))
        writer.writerows((bad.file, bad.reason) for bad in rejected)
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; choose another --out") from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path} does not hold what a run writes; choose another --out")
    return plain


def _without_engine(plain: dict[str, Any]) -> dict[str, Any]:
    simulation = plain.get("simulation")
    if isinstance(simulation, dict):
        simulation = {key: value for key, value in simulation.items() if key != "engine"}
    return {"simulation": simulation, "study": plain.get("study")}
