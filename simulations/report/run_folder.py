"""A run folder, read and checked: what the report, the terminal table and the comparison start from.

Layout of a run folder (``format`` 1)::

    results.json                  the outcome: sites, metrics, curves, comparisons
    rounds.jsonl                  one event a line: rounds with participation, validation by version
    baselines/<name>/rounds.jsonl the same for the models trained for comparison
    configuration.json            resolved simulation and study
    environment.json              versions and machine

Keys that this version does not know are ignored, so that an older report reads a newer run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fedcad.shared.errors import DataError

FORMAT = 1
UNION = "union"
MEAN_OF_SITES = "mean of sites"


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A number; None where there is none (also in place of NaN and infinities)."""


class Recorded(BaseModel):
    """Immutable; unknown keys ignored; no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class SplitCounts(Recorded):
    """A count for each split."""

    train: int = 0
    validation: int = 0
    test: int = 0

    @property
    def total(self) -> int:
        """Sum over the splits."""
        return self.train + self.validation + self.test


class SplitLabels(Recorded):
    """Cases of each class, for each split."""

    train: dict[str, int] = {}
    validation: dict[str, int] = {}
    test: dict[str, int] = {}


class Acquisition(Recorded):
    """Cases by vendor and by view."""

    vendor: dict[str, int] = {}
    view: dict[str, int] = {}


class SiteRecord(Recorded):
    """What one emulated hospital holds."""

    name: str
    role: Literal["training", "external"]
    patients: SplitCounts
    cases: SplitCounts
    labels: SplitLabels
    acquisition: Acquisition = Acquisition()
    rejects: dict[str, int] = {}


class ExcludedSite(Recorded):
    """A site left out of the simulation, and why."""

    name: str
    reason: str


class MetricRecord(Recorded):
    """One figure with its denominator, or the reason why it has none."""

    value: Figure
    denominator: str = ""
    undefined: str = ""


class RocCurve(Recorded):
    """One class against the rest, points from (0, 0) to (1, 1)."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if len(self.fpr) != len(self.tpr):
            raise ValueError(f"{len(self.fpr)} false and {len(self.tpr)} true positive rates")
        return self


class Calibration(Recorded):
    """Reliability by bin of confidence; bins without cases hold None."""

    confidence: tuple[Figure, ...] = ()
    accuracy: tuple[Figure, ...] = ()
    count: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _has_one_of_each(self) -> Self:
        lengths = (len(self.confidence), len(self.accuracy), len(self.count))
        if len(set(lengths)) != 1:
            raise ValueError(f"confidence, accuracy and count have {lengths} bins")
        return self


class Confusion(Recorded):
    """Counts, rows the true class and columns the predicted class."""

    classes: tuple[str, ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        size = len(self.classes)
        if len(self.counts) != size or any(len(row) != size for row in self.counts):
            raise ValueError(f"counts are not {size} rows of {size} columns, one for each class")
        return self


class Curves(Recorded):
    """Plain data behind the plots of one model on one test set."""

    roc: dict[str, RocCurve] = {}
    calibration: Calibration = Calibration()
    confusion: Confusion = Confusion()


def _whole_interval(value: Any) -> Any:
    """Return None in place of an interval with an end that is absent or not finite."""
    if isinstance(value, list | tuple) and any(_finite_or_none(end) is None for end in value):
        return None
    return tuple(value) if isinstance(value, list) else value


def _ordered(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    if interval is not None and interval[0] > interval[1]:
        raise ValueError(f"the low end of an interval is above its high end: {interval}")
    return interval


Interval = Annotated[tuple[float, float] | None, BeforeValidator(_whole_interval), AfterValidator(_ordered)]
"""Low and high end, both finite and in order; None where there is none."""


class Evaluation(Recorded):
    """One model on one test set; ``interval`` is of the primary metric."""

    model: str
    on: str
    metrics: dict[str, MetricRecord]
    interval: Interval = None
    curves: Curves = Curves()


class ComparisonRecord(Recorded):
    """``model`` minus ``against`` in one metric on one test set, paired by patient."""

    model: str
    against: str
    on: str
    metric: str
    difference: Figure
    interval: Interval = None
    undefined: str = ""


class TimeSpent(Recorded):
    """Wall-clock seconds of each part of the run."""

    prepare_s: float = 0.0
    federated_s: float = 0.0
    baselines_s: float = 0.0
    evaluation_s: float = 0.0
    total_s: float = 0.0


class Results(Recorded):
    """The content of ``results.json``."""

    format: Literal[1]
    simulation: str
    study: str
    description: str = ""
    seed: int
    engine: str
    status: Literal["completed", "stopped"]
    reason: str = ""
    model_sha256: str = ""
    selected_version: int
    rounds_planned: int
    rounds_closed: int
    primary_metric: str
    classes: tuple[str, ...]
    parameters: int
    model: str
    privacy: str
    algorithm: str
    sites: tuple[SiteRecord, ...]
    excluded_sites: tuple[ExcludedSite, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()
    time: TimeSpent = TimeSpent()

    def evaluation(self, model: str, on: str) -> Evaluation | None:
        """Return the evaluation of a model on a test set, None where it was not made."""
        return next((item for item in self.evaluations if item.model == model and item.on == on), None)

    def comparison(self, against: str, on: str) -> ComparisonRecord | None:
        """Return federated minus ``against`` in the primary metric, None where it was not made."""
        for item in self.comparisons:
            if (item.model, item.against, item.on, item.metric) == (
                "federated",
                against,
                on,
                self.primary_metric,
            ):
                return item
        return None


class Participant(Recorded):
    """What became of one site in one attempt at a round."""

    site: str
    status: Literal["counted", "late", "lost", "refused", "rejected"]
    reason: str = ""
    weight: int = 0
    delay_s: float = 0.0


class RoundEvent(Recorded):
    """One attempt at a round."""

    event: Literal["round"]
    round: int
    attempt: int = 1
    seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    participation: tuple[Participant, ...] = ()


class ValidationFigures(Recorded):
    """One model version on one validation set."""

    loss: Figure = None
    macro_auroc: Figure = None
    balanced_accuracy: Figure = None
    cases: int = 0


class ValidationEvent(Recorded):
    """A model version on every validation set; version 0 is the initial model, r the one after round r."""

    event: Literal["validation"]
    version: int
    sites: dict[str, ValidationFigures] = {}
    union: ValidationFigures = ValidationFigures()


@dataclass(frozen=True)
class Journal:
    """The events of one ``rounds.jsonl``, in order; a repeated event (after a resume) counts once, the last.

    Attributes:
        rounds: One entry for each (round, attempt).
        validations: One entry for each version.
        torn: The last line was cut off, as after kill -9, and was left out.
    """

    rounds: tuple[RoundEvent, ...] = ()
    validations: tuple[ValidationEvent, ...] = ()
    torn: bool = False


@dataclass(frozen=True)
class Run:
    """A run folder in memory.

    Attributes:
        folder: Where it was read.
        results: The outcome.
        journal: Events of the federated run.
        baselines: Events of ``pooled`` and ``alone-<site>``, by name.
        configuration: Resolved simulation and study; empty where not recorded.
        environment: Versions and machine; empty where not recorded.
    """

    folder: Path
    results: Results
    journal: Journal
    baselines: Mapping[str, Journal]
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]


def read_run(folder: Path) -> Run:
    """Read and check a run folder.

    Raises:
        DataError: A part is missing, damaged or of another format; the message says what to do.
    """
    return Run(
        folder=folder,
        results=_read_results(folder),
        journal=read_journal(folder / "rounds.jsonl"),
        baselines={
            path.parent.name: read_journal(path)
            for path in sorted((folder / "baselines").glob("*/rounds.jsonl"))
        },
        configuration=_read_plain(folder / "configuration.json"),
        environment=_read_plain(folder / "environment.json"),
    )


def read_journal(path: Path) -> Journal:
    """Read a ``rounds.jsonl``; an absent file is an empty journal, a torn last line is left out.

    Raises:
        DataError: A line before the last cannot be read.
    """
    if not path.is_file():
        return Journal()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rounds: dict[tuple[int, int], RoundEvent] = {}
    validations: dict[int, ValidationEvent] = {}
    torn = False
    for number, line in enumerate(lines, start=1):
        event = _parse_line(path, number, line, is_last=number == len(lines))
        if isinstance(event, RoundEvent):
            rounds[event.round, event.attempt] = event
        elif isinstance(event, ValidationEvent):
            validations[event.version] = event
        torn = torn or event == "torn"
    return Journal(
        tuple(rounds[key] for key in sorted(rounds)),
        tuple(validations[key] for key in sorted(validations)),
        torn,
    )


_ROUND = TypeAdapter(RoundEvent)
_VALIDATION = TypeAdapter(ValidationEvent)


def _parse_line(
    path: Path, number: int, line: str, *, is_last: bool
) -> RoundEvent | ValidationEvent | Literal["torn"] | None:
    """Return the event of a line, None for blank lines and unknown events."""
    if not line.strip():
        return None
    try:
        kind = json.loads(line)["event"]
        if kind == "round":
            return _ROUND.validate_json(line)
        return _VALIDATION.validate_json(line) if kind == "validation" else None
    except (ValueError, TypeError, KeyError) as error:
        if is_last:
            return "torn"
        raise DataError(
            f"{path}, line {number}: not an event of a run ({_first_problem(error)}). "
            "Only the last line may be cut off; remove this line, or run the simulation again."
        ) from error


def _read_results(folder: Path) -> Results:
    path = folder / "results.json"
    if not path.is_file():
        what = "there is no results.json in it" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{folder} is not the folder of a finished or stopped run: {what}. Give the folder that "
            "`fedcad simulate` printed at its end; a run that was cut off writes it after `--resume`."
        )
    text = path.read_bytes()
    try:
        given = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Run the simulation again.") from error
    version = given.get("format") if isinstance(given, dict) else None
    if version != FORMAT:
        raise DataError(
            f"{path}: format is {version!r}, this version of FedCAD reads format {FORMAT}. "
            "Report it with the FedCAD version that ran it (see environment.json), or run it again."
        )
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{path}: {_first_problem(error)}. Run the simulation again.") from error


def _read_plain(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Run the simulation again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}, expected an object. Run again.")
    return content


def _first_problem(error: Exception) -> str:
    """Say in one line what is wrong, with the key."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error) or type(error).__name__
