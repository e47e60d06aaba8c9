"""What the files of a run record: immutable models, checked when they are read.

Keys that this version does not know are ignored, so that an older report reads a newer run.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

UNION = "union"
EXTERNAL_SITES = "external sites"
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
    sites: tuple[str, ...] = ()
    """For the mean of sites: which sites it is over."""


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
    notes: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()
    case_passes: dict[str, float] = {}
    """How often the average training case is drawn in all rounds: ``federated``, ``pooled``."""
    time: TimeSpent = TimeSpent()

    @property
    def joined_places(self) -> tuple[str, ...]:
        """Test sets that join sites and are worth a row: one external site is its own."""
        external = sum(site.role == "external" for site in self.sites)
        return (UNION, EXTERNAL_SITES) if external > 1 else (UNION,)

    def evaluation(self, model: str, on: str) -> Evaluation | None:
        """Return the evaluation of a model on a test set, None where it was not made."""
        return next((item for item in self.evaluations if item.model == model and item.on == on), None)

    def comparison(self, against: str, on: str, *, model: str = "federated") -> ComparisonRecord | None:
        """Return a model minus ``against`` in the primary metric, None where it was not made."""
        for item in self.comparisons:
            if (item.model, item.against, item.on, item.metric) == (
                model,
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
    """One attempt at a round; ``stopped`` where it closed below the quorum, which ends the run."""

    event: Literal["round", "stopped"]
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
