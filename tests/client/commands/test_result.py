"""``fedcad client result`` as a person gives it."""

from pathlib import Path

import numpy as np
import pytest
from joined_site import join_site

from fedcad.client.hospital import Hospital
from fedcad.client.results import MODEL, keep_result
from fedcad.client.workbench import freeze
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.cli import run
from fedcad.shared.envelope import PLAN, sign_texts
from fedcad.shared.messages import Header, RoundPlan, Update, encode

from tiny_study import make_study  # isort: skip


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    joined, coordinator = join_site(tmp_path)
    contract = freeze(make_study())
    vectors = {"model": contract.initial.numpy()}
    plan = RoundPlan(
        study_hash=contract.study_hash,
        site=joined.site.name,
        round=0,
        work=("test",),
        broadcast_hash=hash_of_vectors(vectors),
    )
    header = Header(
        study_hash=plan.study_hash, plan=plan.identity, round=0, site=joined.site.name, weights={}
    )
    texts = sign_texts({"plan": encode(plan)}, PLAN, coordinator.key)
    keep_result(joined.state, contract.terms, texts, broadcast=vectors, answer=Update(header))
    return joined


def test_results_are_listed_shown_and_copied(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["client", "result", str(hospital.folder)]) == 0
    assert capsys.readouterr().out.startswith("tiny ")
    out = tmp_path / "copy.safetensors"
    assert run(["client", "result", str(hospital.folder), "tiny", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "signed by the coordinator: verified" in shown
    assert "not for clinical use" in shown
    (kept,) = (hospital.state / "results").glob(f"*/{MODEL}")
    assert out.read_bytes() == kept.read_bytes()


def test_nothing_is_overwritten_and_unknown_studies_are_named(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"mine")
    assert run(["client", "result", str(hospital.folder), "tiny", "--out", str(there)]) == 2
    assert there.read_bytes() == b"mine"
    assert run(["client", "result", str(hospital.folder), "other"]) == 2
    assert "there are: tiny" in capsys.readouterr().err


def test_a_changed_model_is_refused(hospital: Hospital, capsys: pytest.CaptureFixture[str]) -> None:
    (kept,) = (hospital.state / "results").glob(f"*/{MODEL}")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(bytes(content))
    assert run(["client", "result", str(hospital.folder), "tiny"]) == 2
    assert "not the model that the coordinator signed" in capsys.readouterr().err
    assert np.frombuffer(bytes(content)[-4:], np.float32).shape == (1,)
