"""The exported model and the facts beside it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from study_factory import LAYOUT

from fedcad.server.checkpoint import Checkpoint, Selection
from fedcad.server.outcome import MODEL, model_hash, read_outcome, write_outcome
from fedcad.shared.errors import CheckpointError

SELECTED = torch.arange(8.0)
CHECKPOINT = Checkpoint(
    "a" * 64, 3, {"model": SELECTED + 1}, Selection(2, SELECTED, {"a": (0.5, 3)}), is_finished=True
)


def test_the_selected_model_is_written_under_its_own_names_and_shapes(tmp_path: Path) -> None:
    write_outcome(tmp_path, CHECKPOINT, LAYOUT)
    tensors = load_file(tmp_path / MODEL)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "classifier/weight": [[0.0, 1.0], [2.0, 3.0]],
        "classifier/bias": [4.0, 5.0],
        "classifier/mean": [6.0, 7.0],
    }


def test_the_facts(tmp_path: Path) -> None:
    write_outcome(tmp_path, CHECKPOINT, LAYOUT)
    assert read_outcome(tmp_path) == {
        "status": "completed",
        "reason": "",
        "model_sha256": model_hash(SELECTED),
        "last_sha256": model_hash(SELECTED + 1),
        "selected_version": 2,
        "rounds_closed": 3,
    }
    assert model_hash(SELECTED) != model_hash(SELECTED + 1)


def test_a_stopped_run_says_why_and_a_later_end_replaces_it(tmp_path: Path) -> None:
    write_outcome(tmp_path, replace(CHECKPOINT, is_finished=False), LAYOUT, stopped="b lost (cable)")
    stopped = read_outcome(tmp_path)
    assert stopped is not None
    assert (stopped["status"], stopped["reason"]) == ("stopped", "b lost (cable)")
    write_outcome(tmp_path, CHECKPOINT, LAYOUT)
    completed = read_outcome(tmp_path)
    assert completed is not None
    assert completed["status"] == "completed"


def test_a_run_that_has_not_ended_has_none(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_damage_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "outcome.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="resume"):
        read_outcome(tmp_path)


def test_the_text_is_json_that_others_can_read(tmp_path: Path) -> None:
    write_outcome(tmp_path, CHECKPOINT, LAYOUT)
    assert json.loads((tmp_path / "outcome.json").read_text())["selected_version"] == 2
