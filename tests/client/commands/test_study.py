"""``fedcad study freeze``: from a study file to a contract's folder."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_study import make_study, study_plain

from fedcad.client.commands.study import LINEAGE, read_initial
from fedcad.client.workbench import freeze
from fedcad.shared.cli import run
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_plain()))
    return path


def model_file(folder: Path, contract: Contract, change: float = 0.5) -> Path:
    named = {
        entry.name: contract.initial[place].view(entry.shape) + change
        for entry, place in contract.layout.slices()
    }
    save_file(named, folder / "earlier.safetensors")
    return folder / "earlier.safetensors"


def test_a_study_is_frozen_as_a_simulation_freezes_it(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "contract"
    assert run(["study", "freeze", str(study), "--out", str(out)]) == 0
    contract = Contract.load(out)
    assert contract.study_hash == freeze(make_study()).study_hash
    assert json.loads((out / LINEAGE).read_text()) == {"initial_from": ""}
    assert contract.study_hash in capsys.readouterr().out


def test_a_filled_folder_is_not_touched(study: Path, tmp_path: Path) -> None:
    (tmp_path / "contract").mkdir()
    (tmp_path / "contract" / "mine").write_text("x")
    assert run(["study", "freeze", str(study), "--out", str(tmp_path / "contract")]) == 2
    assert [path.name for path in (tmp_path / "contract").iterdir()] == ["mine"]


def test_a_study_can_begin_with_an_earlier_model(study: Path, tmp_path: Path) -> None:
    first = freeze(make_study())
    earlier = model_file(tmp_path, first)
    out = tmp_path / "contract"
    assert run(["study", "freeze", str(study), "--out", str(out), "--initial", str(earlier)]) == 0
    contract = Contract.load(out)
    assert torch.equal(contract.initial, first.initial + 0.5)
    assert contract.study_hash != first.study_hash
    assert "earlier.safetensors" in json.loads((out / LINEAGE).read_text())["initial_from"]


@pytest.mark.parametrize("damage", ["missing", "shape", "more", "nan", "garbage"])
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    contract = freeze(make_study())
    path = model_file(tmp_path, contract)
    tensors = load_file(path)
    name = contract.layout.exchanged[0].name
    if damage == "missing":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name].reshape(-1)
    elif damage == "more":
        tensors["classifier/more"] = torch.zeros(1)
    elif damage == "nan":
        tensors[name] = tensors[name] * float("nan")
    save_file(tensors, path)
    if damage == "garbage":
        path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError):
        read_initial(path, contract)
