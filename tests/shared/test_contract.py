"""The contract: what was frozen comes back, and nothing else does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors
from study_factory import LAYOUT, make_contract, make_study

from fedcad.shared import contract as module
from fedcad.shared.canonical import canonical_json
from fedcad.shared.contract import LARGEST_TEXT, Contract, Terms
from fedcad.shared.errors import CheckpointError, ProtocolError
from fedcad.shared.layout import Entry, Layout, Role

TEXT, TENSORS = "contract.json", "initial.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_contract().save(tmp_path / "contract")
    return tmp_path / "contract"


@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox", "fedopt-adam"])
@pytest.mark.parametrize("validation", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, algorithm: str, validation: bool) -> None:
    contract = make_contract(algorithm=algorithm, validation=validation, description="Ärzte: ≥ 2 \n Zeilen")
    contract.save(tmp_path / "a" / "b")
    loaded = Contract.load(tmp_path / "a" / "b")
    assert loaded.study == contract.study
    assert loaded.layout == contract.layout
    assert torch.equal(loaded.initial, contract.initial)
    assert loaded.study_hash == contract.study_hash
    assert loaded == replace(contract, initial=loaded.initial)


def test_saving_twice_writes_the_same_bytes(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    Contract.load(saved).save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert set(before) == {TEXT, TENSORS}


CHANGES: dict[str, Callable[[Contract], Contract]] = {
    "seed": lambda c: replace(c, study=c.study.model_copy(update={"seed": 9})),
    "rounds": lambda c: replace(c, study=c.study.model_copy(update={"rounds": 9})),
    "one bit of one parameter": lambda c: replace(c, initial=c.initial + torch.eye(1, 8)[0] * 1e-7),
    "a name": lambda c: replace(
        c, layout=Layout((replace(c.layout.entries[0], name="x"), *c.layout.entries[1:]))
    ),
    "a frozen value": lambda c: replace(c, unexchanged_sha256="0" * 64),
    "order": lambda c: replace(c, layout=Layout(c.layout.entries[::-1])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_is_in_the_hash(change: str) -> None:
    contract = make_contract()
    changed = CHANGES[change](contract)
    assert changed.study_hash != contract.study_hash
    assert make_contract().study_hash == contract.study_hash


def test_the_version_is_in_the_hash(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_contract().study_hash
    monkeypatch.setattr(module, "__version__", "9.9.9")
    assert make_contract().study_hash != before
    with pytest.raises(CheckpointError, match="or to this version"):
        Contract.load(saved)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_changed_byte_is_refused(tmp_path_factory, data) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("contract")
    make_contract().save(folder)
    path = folder / data.draw(st.sampled_from([TEXT, TENSORS]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        Contract.load(folder)


@pytest.mark.parametrize("name", [TEXT, TENSORS])
@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b" ", lambda c: b"", lambda c: c[:40]])
def test_torn_and_longer_files_are_refused(saved: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (saved / name).write_bytes(change((saved / name).read_bytes()))
    with pytest.raises(CheckpointError):
        Contract.load(saved)


@pytest.mark.parametrize("name", [TEXT, TENSORS])
def test_missing_files_are_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Contract.load(saved)


@pytest.mark.parametrize(
    "text", ["[]", "1", "null", "{}", '{"study":{}}', "[" * 100_000, '{"study":3,"layout":3}']
)
def test_other_json_is_refused(saved: Path, text: str) -> None:
    (saved / TEXT).write_text(text)
    with pytest.raises(CheckpointError):
        Contract.load(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 1),
        ("unexchanged_sha256", "0" * 64),
        ("unexchanged_sha256", []),
        ("fedcad", "0.0.0"),
        ("initial_sha256", "0" * 64),
        ("layout", []),
        ("layout", [["a", [float("inf")], "float32", "trained"]]),
        ("layout", [["a", [8], "float32", "secret"]]),
        ("study", {}),
        ("more", 1),
    ],
)
def test_one_changed_fact_is_refused(saved: Path, key: str, value: Any) -> None:
    plain = json.loads((saved / TEXT).read_text())
    (saved / TEXT).write_text(json.dumps(plain | {key: value}))
    with pytest.raises(CheckpointError):
        Contract.load(saved)


def test_the_same_facts_written_otherwise_are_refused(saved: Path) -> None:
    """There is one byte sequence for one contract."""
    plain = json.loads((saved / TEXT).read_text())
    (saved / TEXT).write_text(json.dumps(plain, indent=1))
    with pytest.raises(CheckpointError, match="belong together"):
        Contract.load(saved)
    (saved / TEXT).write_bytes(canonical_json(plain))
    Contract.load(saved)


def test_an_interrupted_save_over_another_contract_is_refused(saved: Path) -> None:
    """Tensors come first: after a kill between the two files they are new and the text is old."""
    other = replace(make_contract(), initial=torch.zeros(LAYOUT.size))
    (saved / TENSORS).write_bytes(save_tensors({"model": other.initial}))
    with pytest.raises(CheckpointError, match="belong together"):
        Contract.load(saved)


@pytest.mark.parametrize(
    "initial",
    [torch.zeros(LAYOUT.size - 1), torch.zeros(LAYOUT.size, dtype=torch.float64), torch.zeros(2, 4)],
    ids=["short", "float64", "matrix"],
)
def test_parameters_that_do_not_fit_the_layout_are_refused(tmp_path: Path, initial: torch.Tensor) -> None:
    Contract(make_study(), LAYOUT, initial).save(tmp_path)
    with pytest.raises(CheckpointError, match="the layout needs"):
        Contract.load(tmp_path)


def test_terms_come_back_from_their_text() -> None:
    contract = make_contract(description="Ärzte: ≥ 2 \n Zeilen")
    terms = Terms.from_text(contract.terms.text())
    assert terms == contract.terms
    assert terms.study_hash == contract.study_hash


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_no_changed_text_has_the_same_terms(data) -> None:  # type: ignore[no-untyped-def]
    terms = make_contract().terms
    text = terms.text()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="utf-8")) + text[place + 1 :]
    if changed == text:
        return
    try:
        other = Terms.from_text(changed)
    except ProtocolError:
        return
    assert other.study_hash != terms.study_hash


@pytest.mark.parametrize("text", [None, 3, b"{}", "", "[]", "{}", "[" * 100_000, " " * (LARGEST_TEXT + 1)])
def test_other_text_is_no_contract(text: object) -> None:
    with pytest.raises(ProtocolError):
        Terms.from_text(text)


def test_terms_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = make_contract().terms.text()
    monkeypatch.setattr(module, "__version__", "9.9.9")
    with pytest.raises(ProtocolError, match=r"another version of FedCAD.*9\.9\.9"):
        Terms.from_text(text)


def test_parameters_read_from_a_file_take_no_memory_until_they_are_used(tmp_path: Path) -> None:
    layout = Layout((Entry("classifier/w", (4_000_000,), "float32", Role.TRAINED),))
    made = Contract(make_study(), layout, torch.arange(4_000_000, dtype=torch.float32))
    made.save(tmp_path)
    made.release()
    before = _resident_mb()
    loaded = Contract.load(tmp_path)
    assert _resident_mb() - before < 8.0
    assert torch.equal(loaded.initial, made.initial)
    assert _resident_mb() - before > 8.0
    loaded.release()
    assert _resident_mb() - before < 8.0
    assert torch.equal(loaded.initial, made.initial)
    assert loaded.study_hash == made.study_hash


@pytest.mark.parametrize(
    "described",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 70]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]},
        {"dtype": "BOOL", "shape": [8], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": 7},
        7,
    ],
    ids=str,
)
def test_a_tensor_file_that_says_what_it_does_not_hold_is_refused(saved: Path, described: Any) -> None:
    text = json.dumps({"model": described}).encode()
    (saved / TENSORS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError):
        Contract.load(saved)


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
