"""A result is there after every closed round, whole, of one round, and with everybody's part in it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from study_folders import NOW, Lost, add_study, make_consortium, run_rounds

from fedcad.server.checkpoint import CheckpointStore
from fedcad.server.study_folder import StudyFolder
from fedcad.server.study_result import Result, curves_of, learning_rows, participation_rows, write_result
from fedcad.server.study_state import view_of
from fedcad.shared.canonical import hash_of
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError

FILES = {
    "model.safetensors",
    "report.html",
    "result.json",
    "participation.csv",
    "participation.json",
    "learning.csv",
    "contract.json",
    "seal.json",
    "study.yaml",
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return add_study(make_consortium(tmp_path), participation={"quorum": 1, "deadline_s": 60.0})


def write(folder: StudyFolder, out: Path) -> Result:
    return write_result(folder, view_of(folder, now=NOW), out)


def selected(folder: StudyFolder) -> torch.Tensor:
    contract = Contract.load(folder.path / "contract")
    checkpoint = CheckpointStore(folder.path / "checkpoints").latest(contract.study_hash)
    assert checkpoint is not None
    return checkpoint.selection.model


def flat(path: Path) -> torch.Tensor:
    """Return a model file as the exchanged vector: trained entries first."""
    tensors = load_file(path)
    names = ("classifier/weight", "classifier/bias", "classifier/mean")
    assert set(tensors) == set(names)
    return torch.cat([tensors[name].reshape(-1) for name in names])


@pytest.mark.parametrize("stop_in", [2, 3, None])
def test_there_is_a_result_after_every_closed_round(
    folder: StudyFolder, tmp_path: Path, stop_in: int | None
) -> None:
    run_rounds(folder, lost={("b", 1): Lost("=HYPERLINK(evil)")}, stop_in=stop_in)
    before = sorted(path.name for path in folder.path.rglob("*"))
    with folder.hold():
        written = write(folder, tmp_path / "out")
    rounds = 3 if stop_in is None else stop_in - 1
    end = "all rounds closed" if stop_in is None else "NOT FINISHED, the study is running"
    assert written.first_line.startswith(f"small v1 after {rounds} of 3 rounds ({end}); the model is version")
    assert written.first_line.endswith("WITHOUT b (round 1)")
    assert {path.name for path in written.folder.iterdir()} == FILES
    assert torch.equal(flat(written.folder / "model.safetensors"), selected(folder))
    plain = json.loads((written.folder / "result.json").read_text())
    assert (plain["rounds_closed"], plain["is_finished"]) == (rounds, stop_in is None)
    assert plain["first_line"] in (written.folder / "report.html").read_text()
    assert sorted(path.name for path in folder.path.rglob("*")) == sorted([*before, "lock"])


def test_participation_has_every_round_and_site_and_no_formula(folder: StudyFolder, tmp_path: Path) -> None:
    run_rounds(folder, lost={("b", 1): Lost("=HYPERLINK(evil)")})
    out = write(folder, tmp_path / "out").folder
    with (out / "participation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["round"], row["site"]) for row in rows] == [(str(r), s) for r in (1, 2, 3) for s in "abc"]
    assert (rows[1]["status"], rows[1]["reason"], rows[1]["weight"]) == ("lost", "'=HYPERLINK(evil)", "0")
    assert json.loads((out / "participation.json").read_text())[1]["reason"] == "=HYPERLINK(evil)"
    with (out / "learning.csv").open(newline="") as stream:
        learning = list(csv.DictReader(stream))
    assert [row["version"] for row in learning if row["site"] == "all"] == ["0", "1", "2", "3"]
    assert {row["cases"] for row in learning if row["site"] == "all"} == {"8", "12"}


def test_lines_of_a_round_that_was_never_closed_are_left_out(folder: StudyFolder, tmp_path: Path) -> None:
    run_rounds(folder, stop_in=3)
    stray = {
        "event": "round",
        "round": 3,
        "attempt": 1,
        "participation": [{"site": "x", "status": "counted"}],
    }
    with (folder.path / "rounds.jsonl").open("a") as stream:
        stream.write(json.dumps(stray) + "\n")
    out = write(folder, tmp_path / "out").folder
    rows = json.loads((out / "participation.json").read_text())
    assert {row["round"] for row in rows} == {1, 2}


def test_before_the_first_closed_round_there_is_none(folder: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no round has been closed yet"):
        write(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_ever_replaced(folder: StudyFolder, tmp_path: Path) -> None:
    run_rounds(folder, stop_in=2)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        write(folder, tmp_path / "out")


def test_an_interruption_leaves_nothing(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_rounds(folder, stop_in=2)

    def interrupt(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedcad.server.study_result.page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(folder, tmp_path / "results" / "out")
    assert list((tmp_path / "results").iterdir()) == []


def facts_of(path: Path) -> Path:
    return path / "checkpoints" / "round-0002.json"


def tensors_of(path: Path) -> Path:
    name = json.loads(facts_of(path).read_text())["selected_file"]["file"]
    return path / "checkpoints" / f"{name}.safetensors"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def seal(plain: dict[str, Any]) -> str:
    """Return a checkpoint's facts with the hash that they would have."""
    kept = {key: value for key, value in plain.items() if key != "sha256"}
    return json.dumps(kept | {"sha256": hash_of(kept)})


def point_elsewhere(path: Path) -> None:
    plain = json.loads(facts_of(path).read_text())
    plain["selected_file"]["file"] = "../../secret"
    facts_of(path).write_text(seal(plain))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "not the ones that were saved": lambda path: flip(tensors_of(path)),
    "tensors are missing": lambda path: tensors_of(path).unlink(),
    "the file is damaged": lambda path: facts_of(path).write_text(
        facts_of(path).read_text().replace('"round": 2', '"round": 1')
    ),
    "not a checkpoint's": point_elsewhere,
    "lines are missing": lambda path: (path / "rounds.jsonl").write_text(""),
    "contract cannot be read": lambda path: (path / "contract" / "contract.json").unlink(),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damage_is_refused_and_nothing_is_written(folder: StudyFolder, tmp_path: Path, reason: str) -> None:
    run_rounds(folder, stop_in=3)
    DAMAGE[reason](folder.path)
    with pytest.raises(CheckpointError, match=reason):
        write(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_finished_study_whose_checkpoint_is_another_is_refused(folder: StudyFolder, tmp_path: Path) -> None:
    run_rounds(folder)
    outcome = json.loads((folder.path / "outcome.json").read_text())
    (folder.path / "outcome.json").write_text(json.dumps(outcome | {"model_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="does not hold the model"):
        write(folder, tmp_path / "out")


def test_curves_are_of_the_main_metrics_all_sites_first(folder: StudyFolder) -> None:
    run_rounds(folder)
    curves = curves_of(learning_rows(folder.events()))
    assert list(curves) == ["loss", "macro_auroc", "balanced_accuracy"]
    assert [curve.name for curve in curves["loss"]] == ["all", "a", "b", "c"]
    assert [version for version, _ in curves["loss"][0].points] == [0, 1, 2, 3]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=6))
def test_metrics_that_are_undefined_have_no_point(found: list[float | None]) -> None:
    learning = [{"version": n, "site": "all", "cases": 1, "loss": value} for n, value in enumerate(found)]
    points = [point for curves in curves_of(learning).values() for curve in curves for point in curve.points]
    assert points == [(n, value) for n, value in enumerate(found) if value is not None]


def test_rows_of_an_empty_log() -> None:
    assert participation_rows([]) == learning_rows([]) == []
    assert curves_of([]) == {}
