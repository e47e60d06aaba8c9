"""The model that a site got at the end of a study, with the coordinator's signature and the site's own test.

``STATE/results/<study hash>/model.safetensors`` and ``result.json``; the second is written last and names
the hash that the coordinator signed, so that a changed or half-written model is never taken for the result.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fedcad.shared.atomic_files import remove_leftovers, write_bytes
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.contract import Terms
from fedcad.shared.envelope import PLAN, verify_texts
from fedcad.shared.errors import CheckpointError, FedCADError
from fedcad.shared.messages import RoundPlan, Update, Vectors, decode
from fedcad.shared.metrics.registry import statistics_for
from fedcad.shared.signing import PublicKey

MODEL, RESULT = "model.safetensors", "result.json"
_LARGEST_RESULT_BYTES = 2**24


@dataclass(frozen=True)
class SiteResult:
    """What a site has of a finished study.

    Attributes:
        study: Name of the study.
        study_hash: Hash of its contract.
        model_sha256: Hash of the model, as the coordinator signed it.
        cases: Test cases of this site.
        metrics: The model's metrics on them; None where one is undefined.
        model: File with its named tensors.
    """

    study: str
    study_hash: str
    model_sha256: str
    cases: int
    metrics: Mapping[str, float | None]
    model: Path


def keep_result(
    state: Path, terms: Terms, texts: Mapping[str, str], *, broadcast: Vectors, answer: Update
) -> None:
    """Keep the model that came with a test plan, and how it did here.

    Args:
        state: The site's state folder.
        terms: The study.
        texts: The plan and its signature, verified.
        broadcast: The models that came along; nothing is kept where it is not one named ``model``.
        answer: The site's own test.
    """
    if set(broadcast) != {"model"}:
        return
    folder = state / "results" / terms.study_hash
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    vector = torch.from_numpy(broadcast["model"].copy())
    named = {entry.name: vector[place].view(entry.shape).clone() for entry, place in terms.layout.slices()}
    write_bytes(folder / MODEL, save_tensors(named))
    plain = {
        "study": terms.study.name,
        "study_hash": terms.study_hash,
        "signed": dict(texts),
        "cases": 0,
        "metrics": {},
        "entries": [entry.name for entry in terms.layout.exchanged],
    }
    statistics = answer.statistics.get("test")
    if statistics is not None:
        plain |= _own_test(terms, statistics[0])
    write_bytes(folder / RESULT, json.dumps(plain, indent=1, allow_nan=False).encode())


def _own_test(terms: Terms, statistics: NDArray[np.int64]) -> dict[str, Any]:
    family = statistics_for(terms.study)
    metrics = {name: metric.value for name, metric in family.metrics(statistics).items()}
    return {"cases": family.cases(statistics), "metrics": metrics}


def results(state: Path, coordinator: PublicKey) -> Iterator[SiteResult]:
    """Yield every result of a site, verified; oldest first.

    Raises:
        CheckpointError: One is damaged, or is not what the coordinator signed.
    """
    found = sorted((state / "results").glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime)
    for path in found:
        yield read_result(path.parent, coordinator)


def read_result(folder: Path, coordinator: PublicKey) -> SiteResult:
    """Read one result and check it against the coordinator's signature.

    Raises:
        CheckpointError: It is damaged, or is not what the coordinator signed.
    """
    try:
        with (folder / RESULT).open("rb") as stream:
            plain = json.loads(stream.read(_LARGEST_RESULT_BYTES))
        texts = {str(name): str(text) for name, text in plain["signed"].items()}
        verify_texts(texts, PLAN, coordinator)
        plan = decode(RoundPlan, texts.get("plan"))
        tensors = load_tensors((folder / MODEL).read_bytes())
        vector = np.concatenate([tensors[name].reshape(-1).numpy() for name in plain["entries"]])
        metrics = {str(name): value for name, value in plain["metrics"].items()}
        result = SiteResult(
            study=str(plain["study"]),
            study_hash=plan.study_hash,
            model_sha256=hash_of_vectors({"model": vector}),
            cases=int(plain["cases"]),
            metrics=metrics,
            model=folder / MODEL,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, FedCADError) as error:
        raise CheckpointError(f"{folder}: the result cannot be used: {error}; ask for it again") from error
    if result.model_sha256 != plan.broadcast_hash:
        raise CheckpointError(
            f"{folder / MODEL}: this is not the model that the coordinator signed (got "
            f"{result.model_sha256[:12]}, expected {plan.broadcast_hash[:12]}); ask for it again"
        )
    return result
