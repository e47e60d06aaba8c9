"""Load the configuration files: parse once, validate once, say everything that is wrong at once."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fedcad.shared.config.consortium import ConsortiumConfig
from fedcad.shared.config.contradictions import contradictions
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.problems import problems_of, refuse
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.config.yaml_document import Document, Problem, read_document

Config = TypeVar("Config", bound=Frozen)


def load_study(path: Path) -> StudyConfig:
    """Load a study file.

    Raises:
        ConfigError: The file cannot be used; the message has one line for each problem:
            ``file:line: key.path: what was given; what is allowed; did you mean 'nearest'?``
    """
    return validate(read_document(path), StudyConfig)


def load_simulation(path: Path) -> SimulationConfig:
    """Load a simulation file alone; the study that it names is not opened.

    Raises:
        ConfigError: As for `load_study`.
    """
    return validate(read_document(path), SimulationConfig)


def load_site(path: Path) -> SiteConfig:
    """Load a site file; the folders that it names are not opened.

    Raises:
        ConfigError: As for `load_study`.
    """
    return validate(read_document(path), SiteConfig)


def load_consortium(path: Path) -> ConsortiumConfig:
    """Load a consortium file.

    Raises:
        ConfigError: As for `load_study`.
    """
    return validate(read_document(path), ConsortiumConfig)


def load_simulation_with_study(path: Path) -> tuple[SimulationConfig, StudyConfig]:
    """Load a simulation file and the study that it names, and check one against the other.

    Raises:
        ConfigError: As for `load_study`, or the study file is absent, or the two contradict each other.
    """
    document = read_document(path)
    simulation = validate(document, SimulationConfig)
    study = _load_named_study(document, path.parent / simulation.study)
    found = [
        Problem(document.line_of(place), place, text) for place, text in contradictions(simulation, study)
    ]
    if found:
        raise refuse(document, found)
    return simulation, study


def validate(document: Document, model: type[Config]) -> Config:
    """Validate a parsed file.

    Raises:
        ConfigError: It breaks a rule of the model, or of YAML; every problem is listed.
    """
    problems = list(document.problems)
    try:
        config = model.model_validate(document.value)
    except ValidationError as error:
        problems += problems_of(document, model, error)
        raise refuse(document, problems) from error
    if problems:
        raise refuse(document, problems)
    return config


def _load_named_study(document: Document, path: Path) -> StudyConfig:
    if not path.is_file():
        place = ("study",)
        text = (
            f"got {document.value['study']!r}, which is not a file; "
            "allowed: the path of a study file, relative to this file"
        )
        raise refuse(document, [Problem(document.line_of(place), place, text)])
    return load_study(path)
