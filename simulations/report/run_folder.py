"""A run folder, read and checked: what the report, the terminal table and the comparison start from.

Layout of a run folder (``format`` 1)::

    results.json                  the outcome: sites, metrics, curves, comparisons
    rounds.jsonl                  one event a line: rounds with participation, validation by version
    baselines/<name>/rounds.jsonl the same for the models trained for comparison
    configuration.json            resolved simulation and study
    environment.json              versions and machine
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fedcad.shared.errors import DataError
from fedcad.simulations.report.records import Results, RoundEvent, ValidationEvent

FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """The events of one ``rounds.jsonl``, in order; a repeated event (after a resume) counts once, the last.

    Attributes:
        rounds: One entry for each (round, attempt); one that stopped the run comes before its repetition.
        validations: One entry for each version.
        torn: The last line was cut off, as after kill -9, and was left out.
    """

    rounds: tuple[RoundEvent, ...] = ()
    validations: tuple[ValidationEvent, ...] = ()
    torn: bool = False


@dataclass(frozen=True)
class Run:
    """A run folder in memory.

    Attributes:
        folder: Where it was read.
        results: The outcome.
        journal: Events of the federated run.
        baselines: Events of ``pooled`` and ``alone-<site>``, by name.
        configuration: Resolved simulation and study; empty where not recorded.
        environment: Versions and machine; empty where not recorded.
    """

    folder: Path
    results: Results
    journal: Journal
    baselines: Mapping[str, Journal]
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]


def read_run(folder: Path) -> Run:
    """Read and check a run folder.

    Raises:
        DataError: A part is missing, damaged or of another format; the message says what to do.
    """
    return Run(
        folder=folder,
        results=_read_results(folder),
        journal=read_journal(folder / "rounds.jsonl"),
        baselines={
            path.parent.name: read_journal(path)
            for path in sorted((folder / "baselines").glob("*/rounds.jsonl"))
        },
        configuration=_read_plain(folder / "configuration.json"),
        environment=_read_plain(folder / "environment.json"),
    )


def read_journal(path: Path) -> Journal:
    """Read a ``rounds.jsonl``; an absent file is an empty journal, a torn last line is left out.

    Raises:
        DataError: A line before the last cannot be read.
    """
    if not path.is_file():
        return Journal()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rounds: dict[tuple[int, bool, int], RoundEvent] = {}
    validations: dict[int, ValidationEvent] = {}
    torn = False
    for number, line in enumerate(lines, start=1):
        event = _parse_line(path, number, line, is_last=number == len(lines))
        if isinstance(event, RoundEvent):
            rounds[event.round, event.event == "round", event.attempt] = event
        elif isinstance(event, ValidationEvent):
            validations[event.version] = event
        torn = torn or event == "torn"
    return Journal(
        tuple(rounds[key] for key in sorted(rounds)),
        tuple(validations[key] for key in sorted(validations)),
        torn,
    )


_ROUND = TypeAdapter(RoundEvent)
_VALIDATION = TypeAdapter(ValidationEvent)


def _parse_line(
    path: Path, number: int, line: str, *, is_last: bool
) -> RoundEvent | ValidationEvent | Literal["torn"] | None:
    """Return the event of a line, None for blank lines and unknown events."""
    if not line.strip():
        return None
    try:
        kind = json.loads(line)["event"]
        if kind in ("round", "stopped"):
            return _ROUND.validate_json(line)
        return _VALIDATION.validate_json(line) if kind == "validation" else None
    except (ValueError, TypeError, KeyError) as error:
        if is_last:
            return "torn"
        raise DataError(
            f"{path}, line {number}: not an event of a run ({_first_problem(error)}). "
            "Only the last line may be cut off; remove this line, or run the simulation again."
        ) from error


def _read_results(folder: Path) -> Results:
    path = folder / "results.json"
    if not path.is_file():
        _refuse_several_seeds(folder)
        what = "there is no results.json in it" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{folder} is not the folder of a finished or stopped run: {what}. Give the folder that "
            "`fedcad simulate` printed at its end; a run that was cut off writes it after `--resume`."
        )
    text = path.read_bytes()
    try:
        given = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Run the simulation again.") from error
    version = given.get("format") if isinstance(given, dict) else None
    if version != FORMAT:
        raise DataError(
            f"{path}: format is {version!r}, this version of FedCAD reads format {FORMAT}. "
            "Report it with the FedCAD version that ran it (see environment.json), or run it again."
        )
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{path}: {_first_problem(error)}. Run the simulation again.") from error


def _refuse_several_seeds(folder: Path) -> None:
    """Name the runs in a folder that holds one for each seed."""
    seeds = sorted(folder.glob("seed-*/results.json"), key=lambda path: (len(path.parent.name), path))
    if seeds:
        runs = " ".join(str(path.parent) for path in seeds)
        raise DataError(f"{folder} holds a run for each seed; give those that you want instead: {runs}")


def _read_plain(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Run the simulation again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}, expected an object. Run again.")
    return content


def _first_problem(error: Exception) -> str:
    """Say in one line what is wrong, with the key."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error) or type(error).__name__
