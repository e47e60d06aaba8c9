"""Small real studies: a contract of a logistic regression, sites that train it, and a channel to them.

Nothing here imports a network library: the coordinator does not either. Sites do real gradient descent with
the study's own algorithm, and answer with real statistics.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedcad.server.channel import FIRST_READY_S, Lost, Reply
from fedcad.server.checkpoint import Checkpoint, CheckpointStore
from fedcad.server.event_log import EventLog
from fedcad.server.rounds import StudyRun
from fedcad.shared.algorithms.interface import Correction, State
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract
from fedcad.shared.layout import Entry, Layout, Role
from fedcad.shared.messages import Header, Refusal, RoundPlan, SiteInfo, Update, Vectors
from fedcad.shared.metrics.registry import statistics_for

LAYOUT = Layout(
    (
        Entry("classifier/mean", (2,), "float32", Role.BUFFER),
        Entry("classifier/weight", (2, 2), "float32", Role.TRAINED),
        Entry("classifier/count", (), "int64", Role.BUFFER),
        Entry("classifier/bias", (2,), "float32", Role.TRAINED),
    )
)
"""Trained: weight (2 classes, 2 features) and bias; exchanged buffer: mean of the features."""
ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedavg-uniform": {"name": "fedavg", "weighting": "uniform"},
    "fedprox": {"name": "fedprox", "proximal_mu": 0.3},
    "scaffold": {"name": "scaffold"},
    "scaffold-cases": {"name": "scaffold", "weighting": "cases", "server_learning_rate": 0.5},
    "fedbn": {"name": "fedbn"},
    **{
        f"fedopt-{name}": {
            "name": "fedopt",
            "server_optimizer": {"name": name, "learning_rate": 0.1}
            | ({"momentum": 0.9} if name == "sgd" else {}),
        }
        for name in ("sgd", "adam", "adagrad", "yogi")
    },
}
"""Every algorithm and every variant of it, as a study file says it."""


def make_study(
    *, algorithm: str | dict[str, Any] = "fedavg", validation: bool = True, **changes: Any
) -> StudyConfig:
    """Return a study of two classes, three rounds; ``changes`` replace whole sections."""
    split = {} if validation else {"train": 0.8, "validation": 0.0, "test": 0.2}
    chosen = ALGORITHMS[algorithm] if isinstance(algorithm, str) else algorithm
    # FedBN needs a model with norms; the layout here is the logistic regression's whatever the study says.
    with_norms = {"name": "cnn", "convolutions": [{"features": 4}]}
    plain: dict[str, Any] = {
        "name": "small",
        "task": {"kind": "classification", "classes": ["normal", "covid19"]},
        "data": {"split": split},
        "preprocessing": {"size": 16},
        "model": with_norms if chosen["name"] == "fedbn" else {"name": "logistic-regression"},
        "training": {"optimizer": {"learning_rate": 0.5}, "batch_size": 4, "local_steps": 3},
        "algorithm": chosen,
        "rounds": 3,
        "evaluation": {"score_bins": 16, "bootstrap_replicates": 2}
        | ({} if validation else {"selection": "last_round"}),
    }
    return StudyConfig.model_validate({**plain, **changes})


def make_contract(study: StudyConfig | None = None, **changes: Any) -> Contract:
    """Return a study, or :func:`make_study` with changes, with layout and initial parameters."""
    initial = torch.linspace(-0.5, 0.5, LAYOUT.size)
    return Contract(study or make_study(**changes), LAYOUT, initial)


class LogisticTrainer:
    """Full-batch gradient descent of the logistic regression on some cases; a real ``Trainer``."""

    trained_size = LAYOUT.trained_size
    device = torch.device("cpu")

    def __init__(self, features: Tensor, labels: Tensor, *, rate: float = 0.5, steps: int = 3) -> None:
        self._features, self._labels, self.learning_rate, self._asked = features, labels, rate, steps
        self.steps = 0

    @property
    def cases(self) -> int:
        return len(self._labels)

    def train(self, start: Tensor, correct: Correction | None = None) -> Tensor:
        trained = start[: self.trained_size].clone().requires_grad_()
        self.steps = self._asked
        for _ in range(self.steps):
            logits = logits_of(trained, self._features)
            (gradient,) = torch.autograd.grad(
                torch.nn.functional.cross_entropy(logits, self._labels), [trained]
            )
            if correct is not None:
                correct(trained.detach(), gradient)
            trained = (trained.detach() - self.learning_rate * gradient).requires_grad_()
        return torch.cat([trained.detach(), self._features.mean(0)])


def logits_of(trained: Tensor, features: Tensor) -> Tensor:
    """Return logits (N, 2) of flat trained parameters (6,) on features (N, 2)."""
    return features @ trained[:4].view(2, 2).T + trained[4:6]


@dataclass
class LogisticSite:
    """A site with real cases; the number in each part is its own."""

    name: str
    contract: Contract
    cases: dict[str, int] = field(default_factory=lambda: {"train": 6, "validation": 4, "test": 3})
    left: dict[int, State] = field(default_factory=dict)
    """What each round left at the site."""

    def data(self, part: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(sum(map(ord, self.name + part)))
        labels = torch.arange(self.cases[part]) % 2
        noise = torch.randn(self.cases[part], 2, generator=generator)
        return noise + labels[:, None].float() * torch.tensor([1.5, -1.0]), labels

    def info(self) -> SiteInfo:
        return SiteInfo(
            site=self.name,
            study_hash=self.contract.study_hash,
            cases=dict(self.cases),  # type: ignore[arg-type]
            summary="{}",
        )

    def answer(self, plan: RoundPlan, vectors: Vectors) -> Update:
        assert hash_of_vectors(dict(vectors)) == plan.broadcast_hash
        tensors = {name: torch.tensor(values) for name, values in vectors.items()}
        algorithm, statistics, trained = algorithm_for(self.contract.study.algorithm), {}, {}
        for work, part in (("validate", "validation"), ("test", "test")):
            if work in plan.work and self.cases[part]:
                replicates = 1 + (2 if part == "test" else 0)
                statistics[part] = self._statistics(_models(tensors), part, replicates)
        if "train" in plan.work:
            state = self.left.get(plan.last_counted_round, algorithm.init_site(LAYOUT))
            trainer = LogisticTrainer(*self.data("train"))
            self.left[plan.round], trained = algorithm.local(state, tensors, trainer)
        header = Header(
            study_hash=plan.study_hash,
            plan=plan.identity,
            round=plan.round,
            site=self.name,
            weights=dict(algorithm.weights(self.cases["train"])) if trained else {},
            releases=(*trained, *statistics),
        )
        return Update(header, {name: vector.numpy() for name, vector in trained.items()}, statistics)

    def _statistics(self, models: Sequence[Tensor], part: str, rows: int) -> Any:
        features, labels = self.data(part)
        outputs = torch.stack([torch.softmax(logits_of(model[:6], features), 1) for model in models]).mean(0)
        weights = np.ones((rows, len(labels)), dtype=np.int64)
        return statistics_for(self.contract.study).collect(outputs.numpy(), labels.numpy(), weights)


def _models(vectors: Mapping[str, Tensor]) -> list[Tensor]:
    return [vectors["model"]] if "model" in vectors else list(vectors.values())


Answer = Update | Refusal | Lost
Mischief = Callable[[RoundPlan, Update], Answer]


class Stopped(Exception):  # noqa: N818 - stands for kill -9
    """The process ended here."""


class DirectChannel:
    """An honest connection to sites in this process, apart from what ``mischief`` says of (site, round)."""

    def __init__(
        self,
        sites: Sequence[LogisticSite],
        mischief: Mapping[tuple[str, int], Mischief] | None = None,
        *,
        backwards: bool = False,
        stop_in: int | None = None,
    ) -> None:
        self.sites = {site.name: site for site in sites}
        self.mischief = dict(mischief or {})
        self.backwards = backwards
        self.stop_in = stop_in
        self.not_ready: dict[str, SiteInfo | Lost] = {}
        self.plans: list[tuple[str, RoundPlan]] = []
        self.deadlines: set[float] = set()
        self.asked_ready: list[tuple[list[str] | None, float]] = []

    def enrolled(self) -> frozenset[str]:
        return frozenset(self.sites) | frozenset(self.not_ready)

    def ready(
        self, sites: Collection[str] | None = None, *, deadline_s: float = FIRST_READY_S
    ) -> Mapping[str, SiteInfo | Lost]:
        self.asked_ready.append((None if sites is None else sorted(sites), deadline_s))
        found = {name: site.info() for name, site in self.sites.items()} | self.not_ready
        return found if sites is None else {name: found[name] for name in sites}

    def ask(self, plans: Mapping[str, RoundPlan], vectors: Vectors, deadline_s: float) -> Iterator[Reply]:
        self.deadlines.add(deadline_s)
        for number, name in enumerate(sorted(plans, reverse=self.backwards)):
            plan = plans[name]
            self.plans.append((name, plan))
            if self.stop_in == plan.round and number == 1:
                raise Stopped
            update = self.sites[name].answer(plan, vectors)
            change = self.mischief.get((name, plan.round), lambda plan, update: update)
            yield Reply(name, change(plan, update), 1.5, 10, 20)


def make_sites(contract: Contract, *names: str) -> list[LogisticSite]:
    """Return sites with different numbers of cases."""
    return [
        LogisticSite(name, contract, {"train": 4 + 2 * i, "validation": 4, "test": 3})
        for i, name in enumerate(names or ("a", "b", "c"))
    ]


def make_run(folder: Path, contract: Contract, channel: Any, observe: Any = None) -> StudyRun:
    """Return a run in a folder."""
    log = EventLog(folder / "rounds.jsonl", observe)
    return StudyRun(contract, channel, store=CheckpointStore(folder / "checkpoints"), log=log)


def bits_of(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """Return everything of a checkpoint in a form that compares bit by bit."""
    state = {name: (tensor.dtype, tensor.numpy().tobytes()) for name, tensor in checkpoint.state.items()}
    selection = checkpoint.selection
    return (
        checkpoint.round,
        state,
        (selection.version, sorted(selection.losses.items()), selection.model.numpy().tobytes()),
        checkpoint.last_counted,
        checkpoint.events,
        checkpoint.is_finished,
    )
