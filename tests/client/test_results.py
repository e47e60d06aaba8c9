"""A site's copy of the final model: only what the coordinator signed, whole or absent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from study_factory import make_contract, make_sites

from fedcad.client.results import MODEL, RESULT, keep_result, read_result, results
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.envelope import PLAN, sign_texts
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import RoundPlan, encode
from fedcad.shared.signing import SigningKey

KEY = SigningKey.generate()
CONTRACT = make_contract()
VECTORS = {"model": CONTRACT.initial.numpy()}


def keep(state: Path, vectors: dict[str, np.ndarray] = VECTORS) -> Path:
    plan = RoundPlan(
        study_hash=CONTRACT.study_hash,
        site="a",
        round=0,
        work=("test",),
        broadcast_hash=hash_of_vectors(vectors),
    )
    answer = make_sites(CONTRACT)[0].answer(plan, vectors)
    texts = sign_texts({"plan": encode(plan)}, PLAN, KEY)
    keep_result(state, CONTRACT.terms, texts, broadcast=vectors, answer=answer)
    return state / "results" / CONTRACT.study_hash


def test_the_model_comes_back_with_its_hash_and_the_own_test(tmp_path: Path) -> None:
    folder = keep(tmp_path)
    (found,) = results(tmp_path, KEY.public)
    assert found == read_result(folder, KEY.public)
    assert found.model_sha256 == hash_of_vectors(VECTORS)
    assert (found.study, found.cases) == (CONTRACT.study.name, 3)
    assert found.metrics
    tensors = load_file(found.model)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        entry.name: entry.shape for entry in CONTRACT.layout.exchanged
    }


def test_a_second_delivery_replaces_the_first(tmp_path: Path) -> None:
    keep(tmp_path)
    keep(tmp_path, {"model": VECTORS["model"] + np.float32(1)})
    (found,) = results(tmp_path, KEY.public)
    assert found.model_sha256 == hash_of_vectors({"model": VECTORS["model"] + np.float32(1)})


def test_an_ensemble_is_not_kept(tmp_path: Path) -> None:
    folder = keep(tmp_path, {"alone-a": VECTORS["model"], "alone-b": VECTORS["model"]})
    assert not folder.exists()
    assert list(results(tmp_path, KEY.public)) == []


def test_another_model_or_signature_is_refused(tmp_path: Path) -> None:
    folder = keep(tmp_path)
    with pytest.raises(CheckpointError, match="signature"):
        read_result(folder, SigningKey.generate().public)
    tensors = load_file(folder / MODEL)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / MODEL)
    with pytest.raises(CheckpointError, match="not the model that the coordinator signed"):
        read_result(folder, KEY.public)


@pytest.mark.parametrize("name", [MODEL, RESULT])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff" * 30])
def test_damage_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = keep(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_result(folder, KEY.public)


@pytest.mark.parametrize("key", ["signed", "study", "cases", "metrics", "entries"])
def test_a_missing_fact_is_refused(tmp_path: Path, key: str) -> None:
    folder = keep(tmp_path)
    plain: dict[str, Any] = json.loads((folder / RESULT).read_text())
    del plain[key]
    (folder / RESULT).write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_result(folder, KEY.public)
