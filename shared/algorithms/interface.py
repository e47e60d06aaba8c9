"""What a federated algorithm is: two halves, pure functions over explicit state.

State is a dictionary of named tensors, so that a checkpoint can hold it. The site's state is transactional:
what :meth:`Algorithm.local` returns is pending until a later plan builds on that round, and is discarded
otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcad.shared.layout import Layout

State = dict[str, Tensor]
Vectors = dict[str, Tensor]
Correction = Callable[[Tensor, Tensor], None]
"""Called before each optimizer step as ``correct(parameters, gradients)``; both flat, trained part only, and
on the trainer's device; changes the gradients in place."""


@dataclass(frozen=True)
class WeightedUpdate:
    """One site's vectors and the weight of each."""

    vectors: Mapping[str, Tensor]
    weights: Mapping[str, int]


@dataclass(frozen=True)
class Sums:
    """What an aggregator gives back.

    Attributes:
        means: Named weighted means of the sites' vectors, float32.
        weights: Sum of the weights of each vector.
        count: Number of updates, |S|.
        enrolled: Number of sites enrolled in the study, N, whether or not they took part: it stays the same
            over the rounds.
        individual: Single updates, sorted by content, for algorithms that need them; memory-mapped.
    """

    means: Mapping[str, Tensor]
    weights: Mapping[str, int]
    count: int
    enrolled: int
    individual: Sequence["WeightedUpdate"] = ()


class Trainer(Protocol):
    """The site's training loop, as an algorithm sees it."""

    @property
    def cases(self) -> int:
        """Number of training cases."""
        ...

    @property
    def trained_size(self) -> int:
        """Length of the trained part at the start of a parameter vector."""
        ...

    @property
    def device(self) -> torch.device:
        """Where a correction's tensors are; all other vectors, given and returned, are on the processor."""
        ...

    @property
    def steps(self) -> int:
        """Number of optimizer steps that the last training took for each parameter, K; 0 before any."""
        ...

    @property
    def learning_rate(self) -> float:
        """Learning rate of each of these steps, η.

        Raises:
            UnsupportedError: Not all parameters were trained with one rate and the same number of steps.
        """
        ...

    def train(self, start: Tensor, correct: Correction | None = None) -> Tensor:
        """Train from a flat parameter vector and return the final one; the argument is not changed."""
        ...


class Algorithm(Protocol):
    """One federated algorithm, both halves."""

    needs_individual_updates: bool
    """True where :meth:`apply` must see each update (robust aggregation): excludes masking."""

    def personal(self, layout: Layout) -> frozenset[str]:
        """Return the names of entries that stay at each site."""
        ...

    def weights(self, cases: int) -> Mapping[str, int]:
        """Return the weights of a site with that many training cases, one for each vector that travels.

        They are whole numbers from 1. That of ``model`` is the one that reports show.
        """
        ...

    def sizes(self, layout: Layout) -> Mapping[str, int]:
        """Return names and lengths of the vectors that travel, the same in both directions.

        ``model``, of the layout's size, is always among them.
        """
        ...

    def init_server(self, initial: Tensor, layout: Layout) -> State:
        """Return the coordinator's first state; ``model`` is the global parameter vector."""
        ...

    def broadcast(self, state: State) -> Vectors:
        """Return what every site of the cohort receives."""
        ...

    def init_site(self, layout: Layout) -> State:
        """Return a site's first state."""
        ...

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Do the site's half of a round and return its next state and the vectors to be summed."""
        ...

    def apply(self, state: State, sums: Sums) -> State:
        """Do the coordinator's half of a round and return its next state."""
        ...
