"""The local training loop: a fixed number of steps on one flat parameter vector.

Legend of shapes: B cases in a batch; P trained parameters.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from fedcad.client.augmentation import augment
from fedcad.client.case_source import CaseSource
from fedcad.client.device import moved
from fedcad.client.personal import personal_parameters
from fedcad.client.round_checkpoint import TrainingState, active_checkpoint
from fedcad.client.workbench import Workbench
from fedcad.shared.algorithms.interface import Correction
from fedcad.shared.config.study import OptimizerConfig
from fedcad.shared.errors import DataError, UnsupportedError
from fedcad.shared.parameters import check_length, flatten, load
from fedcad.shared.seeds import derive_seed, torch_generator
from fedcad.shared.tasks.interface import Batch, Objective


class LocalTrainer:
    """Trains a study's networks on one site's cases, for one round.

    All randomness (order of cases, augmentation, dropout) derives from the study's seed, the site and the
    round, so that a repeated round gives the same bits.
    """

    def __init__(self, bench: Workbench, data: CaseSource, *, site: str, round_number: int) -> None:
        """Bind networks to cases for one round."""
        self._bench = bench
        self._data = data
        self._study = bench.contract.study
        self._layout = bench.contract.layout
        self._place = (site, round_number)
        self._personal = [
            parameter
            for network in bench.networks
            for parameter in personal_parameters(bench.networks, bench.contract.layout, network)
        ]
        labels = data.labels("train")
        self._cases = len(labels)
        self._steps = 0
        self._targets = bench.task.targets(labels)

    @property
    def cases(self) -> int:
        """Number of training cases."""
        return self._cases

    @property
    def trained_size(self) -> int:
        """P, the length of the trained part of a parameter vector."""
        return self._layout.trained_size

    @property
    def device(self) -> torch.device:
        """Where the networks train, and the tensors of a correction are."""
        return self._bench.device

    @property
    def steps(self) -> int:
        """Number of local steps that the last training took; 0 before any."""
        return self._steps

    @property
    def learning_rate(self) -> float:
        """Learning rate of these steps.

        Raises:
            UnsupportedError: The task has no objective, or several whose learning rates or intervals differ.
        """
        objectives = self._bench.task.objectives()
        rates = {objective.optimizer.learning_rate for objective in objectives}
        if len(rates) != 1 or any(objective.interval != 1 for objective in objectives):
            raise UnsupportedError(
                f"the task's {len(objectives)} objectives have the learning rates {sorted(rates)}; the "
                "study's algorithm needs one rate, and each objective's step in every local step; choose "
                "another algorithm"
            )
        return rates.pop()

    def train(self, start: Tensor, correct: Correction | None = None) -> Tensor:
        """Train from a flat vector, shape (layout.size,), and return the final one; both on the processor.

        Personal entries go on from what the networks hold and are left there. A task without objectives
        trains nothing: no case is drawn, and the start is returned, as a copy.

        Raises:
            InvalidUpdate: The vector's length is not the layout's.
            DataError: There is no training case.
        """
        check_length(self._layout, start)
        self._steps = 0
        if not self._bench.task.objectives():
            return start.clone()
        if not self.cases:
            raise DataError("the site has no training case; it can validate and test, but not train")
        load(self._bench.networks, self._layout, start)
        torch.manual_seed(derive_seed(self._study.seed, "dropout", *self._place))
        for network in self._bench.networks.values():
            network.train()
        objectives = [(each, self._optimizer(each)) for each in self._bench.task.objectives()]
        generator = torch_generator(self._study.seed, "augmentation", *self._place)
        state = TrainingState(self._bench, [optimizer for _, optimizer in objectives], generator)
        checkpoint = active_checkpoint()
        self._steps = checkpoint.resume(state) if checkpoint else 0
        for batch in self._batches(generator):
            for objective, optimizer in objectives:
                if self._steps % objective.interval == 0:
                    self._step(objective, optimizer, batch, correct)
            self._steps += 1
            if checkpoint:
                checkpoint.after_step(state, self._steps)
        return flatten(self._bench.networks, self._layout)

    def _step(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        correct: Correction | None,
    ) -> None:
        """Take one optimizer step on the mean of the cases' losses."""
        flat = self._bench.flat
        flat.gradients.zero_()
        for parameter in self._personal:
            parameter.grad = None
        objective.losses(self._bench.networks, batch).mean().backward()  # type: ignore[no-untyped-call]
        if correct is not None:
            correct(flat.values, flat.gradients)
        optimizer.step()

    def _optimizer(self, objective: Objective) -> torch.optim.Optimizer:
        """Build an objective's optimizer over the flat parameters of its networks."""
        flat, parameters = self._bench.flat, []
        for network in objective.networks:
            place = flat.range_of(network)
            parameter = torch.nn.Parameter(flat.values[place])
            parameter.grad = flat.gradients[place]
            parameters += [parameter, *personal_parameters(self._bench.networks, self._layout, network)]
        return make_optimizer(objective.optimizer, parameters)

    def _batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the round's batches after those that were trained on before an interruption."""
        for indices in islice(self._orders(), self._steps, None):
            inputs = augment(self._study.augmentation, self._data.inputs("train", indices), generator)
            yield Batch(
                moved(inputs, self.device),
                moved({name: values[indices] for name, values in self._targets.items()}, self.device),
            )

    def _orders(self) -> Iterator[list[int]]:
        """Yield the case numbers of each batch: whole passes over the cases, or a fixed number of steps."""
        training = self._study.training
        generator = torch_generator(self._study.seed, "batches", *self._place)
        steps, epochs = 0, 0
        while training.local_epochs is None or epochs < training.local_epochs:
            order = torch.randperm(self.cases, generator=generator).tolist()
            for first in range(0, len(order), training.batch_size):
                if steps == training.local_steps:
                    return
                yield order[first : first + training.batch_size]
                steps += 1
            epochs += 1


def make_optimizer(config: OptimizerConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Build a site's optimizer."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay)
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
