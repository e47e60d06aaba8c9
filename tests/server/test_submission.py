"""Submitting and amending: whole or absent, sealed, never over something else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_factory import make_contract

from fedcad.server import submission as module
from fedcad.server.settings import RunSettings
from fedcad.server.study_folder import StudyFolder, Wanted, all_studies
from fedcad.server.submission import Submission, amend, differences, submit
from fedcad.shared.contract import Contract
from fedcad.shared.errors import ConfigError
from fedcad.shared.seal import FROM_SEED, SignedSeal, verify_seal
from fedcad.shared.signing import SigningKey

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SUBMISSION = Submission("north", ("a", "b", "c"), SigningKey.generate(), NOW, 30)


def seal_of(folder: StudyFolder) -> SignedSeal:
    return SignedSeal.model_validate_json((folder.path / "seal.json").read_bytes())


def test_a_submitted_study_is_sealed_wanted_and_complete(tmp_path: Path) -> None:
    contract = make_contract(description="Ärzte")
    folder = submit(tmp_path, contract, SUBMISSION)
    assert folder.path == tmp_path / contract.study.name / "v0001"
    loaded = Contract.load(folder.path / "contract")
    terms = verify_seal(
        loaded.terms.text(),
        (folder.path / "seal.json").read_text(),
        coordinator=SUBMISSION.key.public,
        now=NOW,
    )
    assert terms.study_hash == contract.study_hash
    assert RunSettings.load(folder.path).sites == ("a", "b", "c")
    wish = folder.wish()
    assert wish is not None
    assert wish.wanted is Wanted.RUNNING
    assert yaml.safe_load((folder.path / "study.yaml").read_text()) == contract.study.model_dump(mode="json")
    assert seal_of(folder).seal.initial_from == FROM_SEED
    assert folder.needs_a_run()


def test_a_name_is_used_once(tmp_path: Path) -> None:
    submit(tmp_path, make_contract(), SUBMISSION)
    with pytest.raises(ConfigError, match=r"exists already.*amend"):
        submit(tmp_path, make_contract(rounds=9), SUBMISSION)


def test_a_quorum_that_cannot_be_met_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    contract = make_contract(participation={"quorum": 4})
    with pytest.raises(ConfigError, match=r"quorum is 4, but 3 sites"):
        submit(tmp_path, contract, SUBMISSION)
    assert all_studies(tmp_path) == []


def test_amending_stops_the_version_before_and_names_it(tmp_path: Path) -> None:
    first = submit(tmp_path, make_contract(), SUBMISSION)
    changed = make_contract(rounds=9)
    second = amend(tmp_path, changed, replace(SUBMISSION, initial_from="the model of v1"))
    assert second.title.endswith("v2")
    seal = seal_of(second).seal
    assert (seal.version, seal.previous) == (2, make_contract().study_hash)
    assert seal.initial_from == "the model of v1"
    before, after = first.wish(), second.wish()
    assert before is not None
    assert after is not None
    assert (before.wanted, after.wanted) == (Wanted.STOPPED, Wanted.RUNNING)
    assert "v2 takes its place" in before.reason


def test_amending_needs_a_study_and_a_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study"):
        amend(tmp_path, make_contract(), SUBMISSION)
    submit(tmp_path, make_contract(), SUBMISSION)
    with pytest.raises(ConfigError, match="nothing would change"):
        amend(tmp_path, make_contract(), SUBMISSION)


def test_differences_name_the_changed_lines_only() -> None:
    lines = differences(make_contract(rounds=2).study, make_contract(rounds=9).study)
    assert [line for line in lines if line.startswith(("-", "+")) and "rounds" in line] == [
        "-rounds: 2",
        "+rounds: 9",
    ]
    assert differences(make_contract().study, make_contract().study) == []


def test_killed_before_the_renaming_there_is_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):  # noqa: N818
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module.StudyFolder, "want", die)
        with pytest.raises(Killed):
            submit(tmp_path, make_contract(), SUBMISSION)
    assert all_studies(tmp_path) == []
    submit(tmp_path, make_contract(), SUBMISSION)
    assert len(all_studies(tmp_path)) == 1


@pytest.mark.parametrize("after", range(4))
def test_killed_while_amending_never_are_two_versions_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Two running versions would train on, and release, every patient's images twice."""

    class Killed(BaseException):
        pass

    def steps(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*arguments, **named)

        return counted

    submit(tmp_path, make_contract(), SUBMISSION)
    left = [after]
    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "want", steps(StudyFolder.want))
        patch.setattr(Path, "rename", steps(Path.rename))
        patch.setattr(module, "sync_folder", steps(module.sync_folder))
        with pytest.raises(Killed):
            amend(tmp_path, make_contract(rounds=9), SUBMISSION)
    assert sum(folder.needs_a_run() for folder in all_studies(tmp_path)) <= 1
    if len(all_studies(tmp_path)) == 1:
        amend(tmp_path, make_contract(rounds=9), SUBMISSION)
    assert [folder.needs_a_run() for folder in all_studies(tmp_path)] == [False, True]
