"""The local loop against an independent plain PyTorch loop, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_study
import torch
from torch import nn

from fedcad.client.evaluation import outputs_of
from fedcad.client.training import LocalTrainer, make_optimizer
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.config.study import OptimizerConfig
from fedcad.shared.errors import DataError, InvalidUpdate, UnsupportedError
from fedcad.shared.models.registry import build_model
from fedcad.shared.parameters import flatten, load
from fedcad.shared.seeds import derive_seed, torch_generator
from fedcad.shared.tasks.classification import Classification

SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"name": "adam", "learning_rate": 0.003}
ADAMW = {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.1}
MODEL = {"name": "cnn", "convolutions": [{"features": 4}, {"features": 6}], "fully_connected": [8]}


def training(optimizer=SGD, *, batch_size=4, **length):
    return {"optimizer": optimizer, "batch_size": batch_size, **(length or {"local_epochs": 2})}


def trained(study, data, *, site="a", round_number=1, correct=None):
    contract = freeze(study)
    trainer = LocalTrainer(Workbench(contract), data, site=site, round_number=round_number)
    return trainer.train(contract.initial, correct)


class CountingCases(tiny_study.MemoryCases):
    """Remembers which batches were asked for."""

    def __init__(self, counts, **more):
        super().__init__(counts, **more)
        self.asked = []

    def inputs(self, part, indices):
        self.asked.append(list(indices))
        return super().inputs(part, indices)


def plain_loop(study, data, start, make, *, orders):
    """Train as a textbook does: the model's own parameters, zero_grad, backward, step."""
    torch.manual_seed(0)
    model = build_model(study.model, classes=3, size=32, channels=1)
    load({"classifier": model}, freeze(study).layout, start)
    model.train()
    torch.manual_seed(derive_seed(study.seed, "dropout", "a", 1))
    optimizer, labels = make(model.parameters()), data.labels("train")
    for order in orders:
        optimizer.zero_grad()
        targets = torch.tensor([tiny_study.CLASSES.index(labels[i]) for i in order])
        logits = model(data.inputs("train", order)["image"])
        nn.functional.cross_entropy(logits, targets, reduction="none").mean().backward()
        optimizer.step()
    return flatten({"classifier": model}, freeze(study).layout)


@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        (SGD, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01)),
        (ADAM, lambda p: torch.optim.Adam(p, lr=0.003)),
        (ADAMW, lambda p: torch.optim.AdamW(p, lr=0.003, weight_decay=0.1)),
    ],
    ids=["sgd", "adam", "adamw"],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_training_is_a_plain_loop_bit_by_bit(optimizer, make, norm):
    study = tiny_study.make_study(training=training(optimizer), model=MODEL | {"norm": norm, "dropout": 0.3})
    data = CountingCases({"train": 11})
    ours = trained(study, data)
    generator = torch_generator(study.seed, "batches", "a", 1)
    orders = []
    for _ in range(2):
        order = torch.randperm(11, generator=generator).tolist()
        orders += [order[0:4], order[4:8], order[8:11]]
    assert data.asked == orders
    plain = plain_loop(study, data, freeze(study).initial, make, orders=orders)
    assert torch.equal(ours, plain)
    assert not torch.equal(ours, freeze(study).initial)


def test_epochs_visit_every_case_once_each():
    data = CountingCases({"train": 10})
    trained(tiny_study.make_study(training=training(local_epochs=3)), data)
    assert [len(batch) for batch in data.asked] == [4, 4, 2] * 3
    for first in (0, 3, 6):
        assert sorted(case for batch in data.asked[first : first + 3] for case in batch) == list(range(10))
    assert data.asked[:3] != data.asked[3:6]


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_steps_are_the_same_number_whatever_the_site_has(steps):
    for cases in (1, 3, 10):
        data = CountingCases({"train": cases})
        trained(tiny_study.make_study(training=training(local_steps=steps)), data)
        assert len(data.asked) == steps


def test_one_epoch_and_as_many_steps_are_the_same():
    data = tiny_study.spread_cases(train=10)
    by_epoch = trained(tiny_study.make_study(training=training(local_epochs=1)), data)
    by_steps = trained(tiny_study.make_study(training=training(local_steps=3)), data)
    assert torch.equal(by_epoch, by_steps)


@pytest.mark.parametrize(
    "augmentation", [{}, {"rotation_degrees": 10, "shift": 0.1, "horizontal_flip": True}]
)
def test_same_seed_site_and_round_give_the_same_bits(augmentation):
    def run(seed=1, site="a", round_number=1):
        study = tiny_study.make_study(
            seed=seed, augmentation=augmentation, model=MODEL | {"dropout": 0.2}, training=training()
        )
        start = torch.zeros(freeze(study).layout.size) + 0.01
        torch.rand(3)  # what ran before in this process must not matter
        trainer = LocalTrainer(
            Workbench(freeze(study)), tiny_study.spread_cases(), site=site, round_number=round_number
        )
        return trainer.train(start)

    first = run()
    assert torch.equal(first, run())
    assert not torch.equal(first, run(seed=2))
    assert not torch.equal(first, run(site="b"))
    assert not torch.equal(first, run(round_number=2))


def test_a_used_workbench_trains_as_a_new_one():
    study = tiny_study.make_study(training=training(), model=MODEL | {"norm": "batch"})
    contract = freeze(study)
    used = Workbench(contract)
    LocalTrainer(used, tiny_study.spread_cases(seed=5), site="b", round_number=9).train(contract.initial + 1)
    ours = LocalTrainer(used, tiny_study.spread_cases(), site="a", round_number=1).train(contract.initial)
    assert torch.equal(ours, trained(study, tiny_study.spread_cases()))


def test_hook_sees_and_changes_the_gradient_before_each_step():
    study = tiny_study.make_study(training=training({"name": "sgd", "learning_rate": 0.5}, local_steps=3))
    contract, seen = freeze(study), []

    def constant(parameters, gradients):
        assert parameters.shape == gradients.shape == (contract.layout.trained_size,)
        seen.append(parameters.clone())
        gradients.fill_(2.0)

    final = trained(study, tiny_study.spread_cases(), correct=constant)
    # Three steps of plain SGD: w − 3 · 0.5 · 2.
    torch.testing.assert_close(final, contract.initial - 3.0)
    assert torch.equal(seen[0], contract.initial)
    torch.testing.assert_close(seen[2], contract.initial - 2.0)


def test_argument_is_not_changed_and_momentum_does_not_cross_rounds():
    study = tiny_study.make_study(training=training())
    contract, data = freeze(study), tiny_study.spread_cases()
    start = contract.initial.clone()
    trainer = LocalTrainer(Workbench(contract), data, site="a", round_number=1)
    first = trainer.train(start)
    assert torch.equal(start, contract.initial)
    assert torch.equal(trainer.train(start), first)


def test_no_case_and_wrong_length_are_refused(bench):
    steps = tiny_study.make_study(training=training(local_steps=2))
    with pytest.raises(DataError, match="no training case"):
        trained(steps, tiny_study.MemoryCases({"train": 0}))
    trainer = LocalTrainer(bench, tiny_study.spread_cases(), site="a", round_number=1)
    with pytest.raises(InvalidUpdate):
        trainer.train(torch.zeros(3))
    assert trainer.cases == 10
    assert trainer.trained_size == bench.contract.layout.trained_size


class Untrained(Classification):
    """A task whose training is optional, and left out."""

    def objectives(self):
        return ()


@pytest.mark.parametrize("cases", [0, 10])
def test_a_task_without_objectives_draws_no_case_and_returns_the_start(cases):
    bench, data = Workbench(freeze(tiny_study.make_study())), CountingCases({"train": cases})
    bench.task = Untrained(bench.contract.study)
    start = bench.contract.initial + 0.5
    final = LocalTrainer(bench, data, site="a", round_number=1).train(start)
    assert torch.equal(final, start)
    assert final is not start
    assert data.asked == []


class Weighed(Classification):
    """Has inputs and targets beside image and label, as other tasks do."""

    def targets(self, labels):
        return super().targets(labels) | {"weight": torch.arange(len(labels)).float()}

    def _losses(self, networks, batch):
        assert torch.equal(batch.inputs["number"], batch.targets["weight"])
        return super()._losses(networks, batch) * batch.targets["weight"]

    def predict(self, networks, inputs):
        return super().predict(networks, inputs) + inputs["number"][:, None]


class Numbered(tiny_study.MemoryCases):
    """Each case has its number as a second input."""

    def inputs(self, part, indices):
        return super().inputs(part, indices) | {"number": torch.tensor(list(indices)).float()}


def test_all_named_inputs_and_targets_reach_the_task():
    study = tiny_study.make_study(training=training(), augmentation={"rotation_degrees": 10})
    bench, data = Workbench(freeze(study)), Numbered({"train": 10, "test": 70})
    bench.task = Weighed(study)
    final = LocalTrainer(bench, data, site="a", round_number=1).train(bench.contract.initial)
    assert not torch.equal(final, bench.contract.initial)
    sums = outputs_of(bench, final, data, "test").sum(axis=1)
    np.testing.assert_allclose(sums, 1 + 3 * np.arange(70), rtol=1e-5)


def test_label_that_is_not_a_class_is_refused(bench):
    with pytest.raises(DataError, match="not a class"):
        LocalTrainer(
            bench, tiny_study.MemoryCases({"train": 2}, classes=("other",)), site="a", round_number=1
        )


def test_optimizers_take_their_settings():
    parameter = [nn.Parameter(torch.zeros(1))]
    sgd = make_optimizer(OptimizerConfig(**SGD), parameter)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.05, 0.9, 0.01)
    assert type(make_optimizer(OptimizerConfig(**ADAM), parameter)) is torch.optim.Adam
    assert type(make_optimizer(OptimizerConfig(**ADAMW), parameter)) is torch.optim.AdamW


@pytest.mark.parametrize(
    ("length", "expected"), [({"local_epochs": 2}, 6), ({"local_steps": 5}, 5), ({"local_steps": 1}, 1)]
)
def test_the_trainer_counts_its_steps_and_says_their_learning_rate(length, expected):
    """10 cases in batches of 4 are 3 steps an epoch."""
    contract = freeze(tiny_study.make_study(model=MODEL, training=training(**length)))
    trainer = LocalTrainer(Workbench(contract), tiny_study.spread_cases(), site="a", round_number=1)
    assert trainer.steps == 0
    for _ in range(2):
        trainer.train(contract.initial)
        assert (trainer.steps, trainer.learning_rate) == (expected, 0.05)


class Paced(Classification):
    """Its objectives have these intervals and learning rates."""

    pace = ((1, 0.1),)

    def objectives(self):
        (only,) = super().objectives()
        return tuple(
            replace(only, interval=i, optimizer=OptimizerConfig(learning_rate=rate)) for i, rate in self.pace
        )


@pytest.mark.parametrize("pace", [((2, 0.1),), ((1, 0.1), (1, 0.2)), ()])
def test_there_is_no_one_learning_rate_where_objectives_differ(pace):
    study = tiny_study.make_study(model=MODEL)
    bench = Workbench(freeze(study))
    bench.task = Paced(study)
    trainer = LocalTrainer(bench, tiny_study.spread_cases(), site="a", round_number=1)
    assert trainer.learning_rate == 0.1
    bench.task.pace = pace
    with pytest.raises(UnsupportedError, match="choose another algorithm"):
        _ = trainer.learning_rate
