"""From a frozen contract to a study that runs: sealed, in a folder of its own, wanted."""

import difflib
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from fedcad.server.settings import RunSettings
from fedcad.server.study_folder import StudyFolder, Wanted, newest_studies
from fedcad.shared.atomic_files import sync_folder, write_bytes
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract
from fedcad.shared.errors import CheckpointError, ConfigError
from fedcad.shared.seal import FROM_SEED, Seal, sign_seal
from fedcad.shared.signing import SigningKey

CONTRACT = "contract"
SEAL = "seal.json"
STUDY = "study.yaml"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Submission:
    """What the coordinator adds to a contract.

    Attributes:
        consortium: Name of the consortium.
        sites: Names of the enrolled sites.
        key: The coordinator's signing key.
        issued: Now, with time zone.
        days: Days until the contract ends.
        initial_from: Lineage of the initial parameters, empty where they come from the study's seed.
    """

    consortium: str
    sites: tuple[str, ...]
    key: SigningKey
    issued: datetime
    days: int
    initial_from: str = ""


def submit(studies: Path, contract: Contract, submission: Submission) -> StudyFolder:
    """Make the first version of a study.

    Raises:
        ConfigError: A study of that name exists, or there are fewer sites than its quorum.
    """
    found = _newest(studies, contract.study.name)
    if found is not None:
        raise ConfigError(
            f"the study {found.title} exists already; choose another name in the study file, or make a new "
            f"version of it: fedcad server amend"
        )
    return _make(studies / contract.study.name / "v0001", contract, submission, previous=None)


def amend(studies: Path, contract: Contract, submission: Submission) -> StudyFolder:
    """Make a new version of a study and stop the one before; its results stay.

    Guarantees:
        At no moment, also after kill -9, are two versions wanted running; amend again where none is.

    Raises:
        ConfigError: There is no study of that name, or nothing has changed.
    """
    found = _newest(studies, contract.study.name)
    if found is None:
        raise ConfigError(f"there is no study {contract.study.name!r} yet; submit it: fedcad server submit")
    before = Contract.load(found.path / CONTRACT)
    if before.study_hash == contract.study_hash:
        raise ConfigError(f"the contract is that of {found.title}; nothing would change")
    version = found.version + 1
    path = found.path.with_name(f"v{version:04d}")
    return _make(path, contract, submission, previous=before.study_hash, replaced=found)


def differences(before: StudyConfig, after: StudyConfig) -> list[str]:
    """Return the changed lines of a study, as a unified diff."""
    old, new = _yaml_of(before).splitlines(), _yaml_of(after).splitlines()
    return list(difflib.unified_diff(old, new, "before", "after", lineterm="", n=2))


def _newest(studies: Path, name: str) -> StudyFolder | None:
    return {folder.name: folder for folder in newest_studies(studies)}.get(name)


def _make(
    path: Path,
    contract: Contract,
    submission: Submission,
    *,
    previous: str | None,
    replaced: StudyFolder | None = None,
) -> StudyFolder:
    """Write everything beside, then rename: a study is there whole or not at all."""
    quorum = contract.study.participation.quorum
    if len(submission.sites) < quorum:
        raise ConfigError(
            f"participation.quorum is {quorum}, but {len(submission.sites)} sites are enrolled; "
            "enrol more sites, or lower the quorum in the study"
        )
    beside = path.with_name(f".{path.name}{_UNFINISHED}")
    shutil.rmtree(beside, ignore_errors=True)
    contract.save(beside / CONTRACT)
    RunSettings(contract=CONTRACT, sites=submission.sites).save(beside)
    write_bytes(beside / STUDY, _yaml_of(contract.study).encode())
    seal = _seal(path, contract, submission, previous)
    write_bytes(beside / SEAL, sign_seal(seal, submission.key).text().encode())
    StudyFolder(beside).want(Wanted.RUNNING)
    if replaced is not None:
        replaced.want(Wanted.STOPPED, f"amended: {StudyFolder(path).title} takes its place")
    try:
        beside.rename(path)
    except OSError as error:
        raise CheckpointError(f"{path}: the study's folder cannot be made: {error.strerror}") from error
    sync_folder(path.parent)
    return StudyFolder(path)


def _seal(path: Path, contract: Contract, submission: Submission, previous: str | None) -> Seal:
    return Seal(
        consortium=submission.consortium,
        study=contract.study.name,
        version=StudyFolder(path).version,
        study_hash=contract.study_hash,
        previous=previous,
        issued=submission.issued.isoformat(timespec="seconds"),
        expires=(submission.issued + timedelta(days=submission.days)).isoformat(timespec="seconds"),
        initial_from=submission.initial_from or FROM_SEED,
    )


def _yaml_of(study: StudyConfig) -> str:
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
