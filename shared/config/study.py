"""What a federated study is: one YAML file, one frozen model.

Each field's description is the configuration reference: the JSON Schema that editors use and the table in
``configs/README.md`` are made from it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.models import ModelConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class TaskConfig(Frozen):
    """The CAD problem."""

    kind: Literal["classification"]
    """Family of the task. `classification`: one of several classes for each case."""
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=100, strict=False)]
    """Names of the classes as they stand in the sites' label tables, in the order of the model's outputs."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be distinct; remove the repeated name")
        return self


class SplitConfig(Frozen):
    """How each site divides its patients; a patient is never in two parts."""

    train: Fraction = 0.6
    """Fraction of patients that train."""
    validation: Fraction = 0.2
    """Fraction of patients that choose the round."""
    test: Fraction = 0.2
    """Fraction of patients that are only tested on, once, at the end."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}; it must be 1")
        if self.train == 0:
            raise ValueError("train is 0; a study needs patients to train on")
        return self


class DataConfig(Frozen):
    """What a case must be to enter the study."""

    modalities: Annotated[tuple[Literal["CR", "DX"], ...], Field(min_length=1, strict=False)] = ("CR", "DX")
    """DICOM modalities (0008,0060) accepted."""
    views: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """View positions (0018,5101) accepted, for instance [AP, PA]; empty accepts any, also none."""
    minimum_patients: Annotated[int, Field(ge=1)] = 1
    """A site with fewer usable patients is refused by name."""
    split: SplitConfig = SplitConfig()
    """Train, validation and test fractions, by patient, inside each site."""


class PreprocessingConfig(Frozen):
    """From display values to the network's input."""

    size: Annotated[int, Field(ge=16, le=2048)]
    """Height and width of the network's input in pixels."""
    crop_top: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Fraction of rows removed at the top, where markers and text sit (COVID-Net: 0.08)."""
    square: Literal["crop", "pad", "stretch"] = "crop"
    """How an oblong image becomes square: centre `crop`, `pad` with black, or `stretch`."""
    intensity: Literal["display", "standardise"] = "display"
    """`display`: window applied, 0 to 1. `standardise`: then zero mean and unit variance per image."""


class AugmentationConfig(Frozen):
    """Random changes of training images; 0 or false switches one off."""

    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Rotation, uniform within ± this many degrees."""
    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Shift of rows and columns, uniform within ± this fraction of the size."""
    zoom: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Zoom, uniform within 1 ± this."""
    brightness: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Brightness, multiplied by a factor uniform within 1 ± this."""
    horizontal_flip: bool = False
    """Mirror left and right with probability 1/2 (wrong where the heart's side matters)."""


class OptimizerConfig(Frozen):
    """A torch optimizer at the site; made anew each round."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """Optimizer of torch.optim."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)]
    """Step size."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Momentum of `sgd`."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Weight decay (L2 in `sgd` and `adam`, decoupled in `adamw`)."""

    @model_validator(mode="after")
    def _momentum_only_with_sgd(self) -> Self:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum belongs to sgd, not to {self.name}; remove it")
        return self


class TrainingConfig(Frozen):
    """What a site does in one round."""

    optimizer: OptimizerConfig
    """The site's optimizer."""
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    """Cases per step."""
    local_epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the site's training cases per round; or give local_steps."""
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Steps per round, the same at every site; or give local_epochs."""
    class_weights: Annotated[tuple[float, ...], Field(strict=False)] = ()
    """Fixed weight of each class in the loss, in the order of task.classes; empty weighs all alike."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Label smoothing of the cross-entropy."""

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if (self.local_epochs is None) == (self.local_steps is None):
            raise ValueError("give exactly one of local_epochs and local_steps")
        if any(weight <= 0 for weight in self.class_weights):
            raise ValueError("class_weights must all be above 0")
        return self


class FedAvgConfig(Frozen):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"]
    """Algorithm."""
    weighting: Literal["cases", "uniform"] = "cases"
    """Weight of a site's update: its number of training `cases`, or `uniform`."""


class FedProxConfig(Frozen):
    """FedAvg with a proximal term at the site (Li et al. 2020)."""

    name: Literal["fedprox"]
    """Algorithm."""
    weighting: Literal["cases", "uniform"] = "cases"
    """Weight of a site's update: its number of training `cases`, or `uniform`."""
    proximal_mu: Annotated[float, Field(gt=0.0, le=1000.0)]
    """Strength μ of the pull towards the round's global parameters."""


class ServerOptimizerConfig(Frozen):
    """The optimizer that takes the mean update as its gradient, at the coordinator."""

    name: Literal["sgd", "adam", "adagrad", "yogi"]
    """`sgd` with momentum is FedAvgM; the others are FedAdam, FedAdagrad and FedYogi."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)]
    """Server step size η."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Momentum of `sgd`."""
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """First-moment decay β₁ of `adam` and `yogi`."""
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Second-moment decay β₂ of `adam` and `yogi`."""
    tau: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Adaptivity τ, added to the root of the second moment."""


class FedOptConfig(Frozen):
    """Adaptive federated optimization (Reddi et al. 2021)."""

    name: Literal["fedopt"]
    """Algorithm."""
    weighting: Literal["cases", "uniform"] = "cases"
    """Weight of a site's update: its number of training `cases`, or `uniform`."""
    server_optimizer: ServerOptimizerConfig
    """Optimizer at the coordinator."""


class ScaffoldConfig(Frozen):
    """SCAFFOLD: local steps corrected by control variates (Karimireddy et al. 2020)."""

    name: Literal["scaffold"]
    """Algorithm. Needs the site's optimizer `sgd` without momentum."""
    weighting: Literal["cases", "uniform"] = "uniform"
    """Weight of a site's model update (paper: `uniform`); control variates are always averaged uniformly."""
    server_learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """Global step size η_g."""


class FedBNConfig(Frozen):
    """FedAvg whose normalisation layers stay at the site (Li et al. 2021)."""

    name: Literal["fedbn"]
    """Algorithm. Needs a model with normalisation layers."""
    weighting: Literal["cases", "uniform"] = "cases"
    """Weight of a site's update: its number of training `cases`, or `uniform`."""


AlgorithmConfig = Annotated[
    FedAvgConfig | FedProxConfig | FedOptConfig | ScaffoldConfig | FedBNConfig, Field(discriminator="name")
]


class ParticipationConfig(Frozen):
    """When a round counts."""

    quorum: Annotated[int, Field(ge=1)] = 1
    """Updates without which a round does not close. A simulation then stops with its last checkpoint; a real
    study waits for sites and tries the round again, as long as `wait_s` says."""
    deadline_s: Annotated[float, Field(gt=0.0)] = 3600.0
    """Seconds after which missing sites are named and left out of the round."""
    wait_s: Annotated[float, Field(ge=0.0)] = 604800.0
    """Seconds that a real study waits below its quorum, its reason shown, before it stops; a week."""


class ExchangeConfig(Frozen):
    """How parameters travel between coordinator and sites."""

    precision: Literal["float32", "float16"] = "float32"
    """`float16` halves every message. Both sides round before they hash, train or add, so that engines agree;
    the coordinator goes on adding to its own float32 parameters. Magnitudes above 65504 are refused."""


class PrivacyConfig(Frozen):
    """Which mechanism protects patients. This version offers none and says so in every report."""

    mechanism: Literal["none", "patient", "central", "distributed"] = "none"
    """`none` for now; the others are refused as not yet available."""

    @model_validator(mode="after")
    def _not_yet(self) -> Self:
        if self.mechanism != "none":
            raise ValueError(
                f"mechanism {self.mechanism!r} is not yet available in this version; only 'none' is"
            )
        return self


class EvaluationConfig(Frozen):
    """How models are chosen and compared."""

    selection: Literal["best_validation", "last_round"] = "best_validation"
    """Which round's parameters are tested: lowest validation loss on the sites that saw both, or the last."""
    bootstrap_replicates: Annotated[int, Field(ge=0, le=2000)] = 200
    """Poisson bootstrap replicates by patient behind the confidence intervals; 0 gives none."""
    score_bins: Annotated[int, Field(ge=16, le=4096)] = 256
    """Bins of the score histograms from which ROC curves are merged exactly across sites."""


class StudyConfig(Frozen):
    """A federated study."""

    name: Name
    """Short name of the study."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What the study is for, in a sentence or two."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed from which initial parameters, batches and augmentation derive (never privacy noise)."""
    task: TaskConfig
    """The CAD problem."""
    data: DataConfig = DataConfig()
    """What a case must be."""
    preprocessing: PreprocessingConfig
    """From display values to the network's input."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of training images."""
    model: ModelConfig
    """The network and its knobs."""
    training: TrainingConfig
    """What a site does in one round."""
    algorithm: AlgorithmConfig
    """How updates become the next model."""
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    """Number of rounds."""
    exchange: ExchangeConfig = ExchangeConfig()
    """How parameters travel."""
    participation: ParticipationConfig = ParticipationConfig()
    """When a round counts."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Protection of patients."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are chosen and compared."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        weights = self.training.class_weights
        if weights and len(weights) != len(self.task.classes):
            raise ValueError(
                f"training.class_weights has {len(weights)} values for {len(self.task.classes)} classes; "
                "give one for each class, or none"
            )
        self._check_algorithm()
        if self.evaluation.selection == "best_validation" and self.data.split.validation == 0:
            raise ValueError(
                "evaluation.selection is best_validation but data.split.validation is 0; "
                "give validation patients or select last_round"
            )
        return self

    def _check_algorithm(self) -> None:
        """Refuse an algorithm whose model or local optimizer does not go with it."""
        norm, optimizer = getattr(self.model, "norm", "none"), self.training.optimizer
        if self.algorithm.name == "fedopt" and norm == "batch":
            raise ValueError(
                "algorithm fedopt with model.norm batch would step running variances like parameters; "
                "use norm group or algorithm fedavg"
            )
        if self.algorithm.name == "fedbn" and norm == "none":
            raise ValueError(
                f"algorithm fedbn keeps normalisation layers at the sites, and the model {self.model.name} "
                "as configured has none; set model.norm, choose a model that has it, or use algorithm fedavg"
            )
        if self.algorithm.name == "scaffold" and (optimizer.name != "sgd" or optimizer.momentum):
            raise ValueError(
                f"algorithm scaffold with training.optimizer {optimizer.name} of momentum "
                f"{optimizer.momentum:g}: "
                "its control variates are mean gradients only after plain SGD steps; set "
                "training.optimizer.name sgd and momentum 0, or use algorithm fedavg"
            )
        if self.algorithm.name == "scaffold" and self.exchange.precision == "float16":
            raise ValueError(
                "algorithm scaffold with exchange.precision float16: what rounding takes from each change of "
                "a site's control variate would add up, and the coordinator's would no longer be their mean; "
                "set exchange.precision float32, or use algorithm fedavg"
            )
