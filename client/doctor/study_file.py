"""The study that a hospital wants to try: a study file, or the contract that the coordinator sent."""

import json
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.config.load import load_study
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Terms
from fedcad.shared.errors import ConfigError
from fedcad.shared.version import __version__

_CONTRACT = "contract.json"
_LARGEST = 64 * 2**20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class StudyFile:
    """A study to try.

    Attributes:
        study: The study.
        terms: The contract, where one was given: what is built here is then compared with it.
    """

    study: StudyConfig
    terms: Terms | None


def load_study_file(path: Path) -> StudyFile:
    """Load a study file (YAML), a contract.json, or a folder that holds one.

    Raises:
        ConfigError: It is none of these, or cannot be used.
    """
    if path.is_dir():
        path = path / _CONTRACT
    if path.suffix != ".json":
        return StudyFile(load_study(path), None)
    try:
        with path.open("rb") as stream:
            plain = json.loads(stream.read(_LARGEST))
        frozen_with = str(plain.get("fedcad"))[:40] if isinstance(plain, dict) else "?"
        if frozen_with != __version__:
            raise ConfigError(
                f"{path}: the contract was frozen with FedCAD {frozen_with}, this is {__version__}; "
                "install that version here: every site of a study uses the same"
            )
        terms = Terms.from_plain(plain)
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path}: this is no contract that can be read ({type(error).__name__}); "
            "give a study file (YAML) or the contract.json as the coordinator sent it"
        ) from error
    return StudyFile(terms.study, terms)
