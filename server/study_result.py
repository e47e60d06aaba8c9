"""What a study has to show after any closed round: model, participation, curves, contract and a page."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcad.server.delivery import NAME as DELIVERY
from fedcad.server.outcome import MODEL, model_hash
from fedcad.server.result_report import Curve, Row, page
from fedcad.server.study_folder import CheckpointFacts, StudyFolder
from fedcad.server.study_state import StudyView
from fedcad.server.study_wording import losses
from fedcad.shared.atomic_files import sync_folder, write_bytes
from fedcad.shared.canonical import hash_of
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError
from fedcad.shared.layout import Layout

_COLUMNS = ("round", "attempt", "site", "status", "reason", "weight", "delay_s")
_TENSOR_FILE = re.compile(r"round-\d{4,}(-final)?(-selected)?")
_MAIN_METRICS = ("loss", "macro_auroc", "balanced_accuracy")
_TRIES = 5
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which spreadsheets take a cell for a formula; a site's reason must not be one."""
_COPIED = ("seal.json", "study.yaml", "contract/contract.json", DELIVERY)


@dataclass(frozen=True)
class Result:
    """Where a result was written, and its first line."""

    folder: Path
    first_line: str


@dataclass(frozen=True)
class _Content:
    """What a result is made of, all of it after the same round."""

    view: StudyView
    facts: CheckpointFacts
    model: Tensor
    layout: Layout
    events: Sequence[Row]


def write_result(folder: StudyFolder, view: StudyView, out: Path) -> Result:
    """Write a result into a new folder: whole, or not at all. The study may run meanwhile.

    Args:
        folder: The study.
        view: Its state.
        out: Folder to make.

    Raises:
        CheckpointError: No round has been closed, something is damaged, or the folder exists.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already; give another folder with --out")
    content = _read(folder, view)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    beside.mkdir()
    try:
        first = _write(folder, content, beside)
        beside.rename(out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(out.parent)
    return Result(out, first)


def result_line(view: StudyView, facts: CheckpointFacts) -> str:
    """Return the first line of a result: after how many rounds, of which version, and who was missing."""
    of = f"{facts.round} of {view.rounds}" if view.rounds else str(facts.round)
    done = "all rounds closed" if facts.is_finished else f"NOT FINISHED, the study is {view.state.value}"
    version = f"version {facts.selected_version}"
    chosen = f"{version} (the initial parameters)" if facts.selected_version == 0 else version
    missing = losses(view) or "every site counted in every round"
    return f"{view.title} after {of} rounds ({done}); the model is {chosen}; {missing}"


def _read(folder: StudyFolder, view: StudyView) -> _Content:
    contract = Contract.load(folder.path / "contract")
    facts, model = _selected(folder)
    if model.shape != (contract.layout.size,):
        raise CheckpointError(f"{folder.path}: checkpoint and contract have models of different sizes")
    outcome = folder.outcome()
    if outcome and outcome.status == "completed" and outcome.model_sha256 != model_hash(model):
        raise CheckpointError(
            f"{folder.path}: the newest checkpoint does not hold the model that the study ended with; "
            "restore the folder from a backup"
        )
    events = folder.events()
    if len(events) < facts.events:
        raise CheckpointError(f"{folder.path}/rounds.jsonl: lines are missing; restore it from a backup")
    return _Content(view, facts, model, contract.layout, events[: facts.events])


def _selected(folder: StudyFolder) -> tuple[CheckpointFacts, Tensor]:
    """Return the newest checkpoint's facts and selected parameters, also while a run replaces it."""
    for attempt in range(_TRIES):
        facts = folder.checkpoint()
        if facts is None:
            raise CheckpointError(
                f"{folder.title}: no round has been closed yet, so that there is no result. "
                "See how far it is: fedcad server status"
            )
        path = folder.path / "checkpoints" / f"{facts.name}.json"
        try:
            return facts, _selected_model(path)
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise CheckpointError(f"{path}: its tensors are missing; restore a backup") from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
    raise CheckpointError(f"{folder.path}: the checkpoints change faster than they can be read; try again")


def _selected_model(path: Path) -> Tensor:
    """Return the selected parameters of a checkpoint, checked against its hashes."""
    plain = json.loads(path.read_bytes())
    if plain.pop("sha256") != hash_of(plain):
        raise CheckpointError(f"{path}: the file is damaged; remove it to use the one before")
    name, expected = str(plain["selected_file"]["file"]), plain["selected_file"]["sha256"]
    if not _TENSOR_FILE.fullmatch(name):
        raise ValueError("it names a file that is not a checkpoint's")
    content = path.with_name(f"{name}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(f"{path}: the tensors in {name} are not the ones that were saved")
    return load_tensors(content)["model"]


def _write(folder: StudyFolder, content: _Content, out: Path) -> str:
    """Write every file and return the first line."""
    _write_model(content, out / MODEL)
    for name in _COPIED:
        if (folder.path / name).exists():
            write_bytes(out / Path(name).name, (folder.path / name).read_bytes())
    rows, learning = participation_rows(content.events), learning_rows(content.events)
    _write_tables(rows, learning, out)
    first, facts = result_line(content.view, content.facts), _facts(folder, content)
    plain = {"first_line": first, **facts, "last_counted": content.facts.last_counted}
    write_bytes(out / "result.json", json.dumps(plain, indent=1).encode())
    title, curves = f"Result of {content.view.title}", curves_of(learning)
    write_bytes(
        out / "report.html",
        page(title, first, facts=facts, rows=rows, curves=curves, tests=_tests(folder)).encode(),
    )
    return first


def _tests(folder: StudyFolder) -> dict[str, Any]:
    """Return what the sites' own tests of the final model gave; empty before the end of the study."""
    path = folder.path / DELIVERY
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
        return {key: dict(found.get(key, {})) for key in ("sites", "union", "without")}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the sites' tests cannot be read: {error}; restore the file"
        ) from error


def _write_model(content: _Content, path: Path) -> None:
    slices = content.layout.slices()
    named = {entry.name: content.model[place].view(entry.shape).clone() for entry, place in slices}
    write_bytes(path, save_tensors(named))


def _write_tables(rows: Sequence[Row], learning: Sequence[Row], out: Path) -> None:
    write_bytes(out / "participation.csv", _csv(rows, _COLUMNS))
    write_bytes(out / "participation.json", json.dumps(rows, indent=1).encode())
    columns = tuple(dict.fromkeys(key for row in learning for key in row)) or ("version", "site", "cases")
    write_bytes(out / "learning.csv", _csv(learning, columns))


def _facts(folder: StudyFolder, content: _Content) -> dict[str, Any]:
    return {
        "study": content.view.name,
        "contract_version": content.view.version,
        "study_hash": folder.contract().study_hash,
        "rounds_closed": content.facts.round,
        "rounds": content.view.rounds,
        "is_finished": content.facts.is_finished,
        "selected_version": content.facts.selected_version,
        "model_sha256": model_hash(content.model),
        "parameters": content.layout.size,
    }


def participation_rows(events: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one row for each closed round and site, in order."""
    return [
        {"round": event["round"], "attempt": event.get("attempt", 1)}
        | {key: part.get(key, "") for key in _COLUMNS[2:]}
        for event in events
        if event["event"] == "round"
        for part in event["participation"]
    ]


def learning_rows(events: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one row for each validated version and site, and one, ``all``, for all their cases together."""
    return [
        {"version": event["version"], "site": name, **figures}
        for event in events
        if event["event"] == "validation"
        for name, figures in {"all": event["union"], **event["sites"]}.items()
    ]


def curves_of(learning: Sequence[Row]) -> dict[str, list[Curve]]:
    """Return the main metrics as curves, all sites' cases together first, then single sites."""
    present = dict.fromkeys(key for row in learning for key in row if key not in ("version", "site", "cases"))
    chosen = [metric for metric in _MAIN_METRICS if metric in present] or list(present)[:1]
    names = list(dict.fromkeys(str(row["site"]) for row in learning))
    curves = {metric: [_curve(name, metric, learning) for name in names] for metric in chosen}
    filled = {metric: [curve for curve in found if curve.points] for metric, found in curves.items()}
    return {metric: found for metric, found in filled.items() if found}


def _curve(name: str, metric: str, learning: Sequence[Row]) -> Curve:
    points = [(row["version"], row.get(metric)) for row in learning if row["site"] == name]
    return Curve(name, [(version, float(value)) for version, value in points if value is not None])


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
