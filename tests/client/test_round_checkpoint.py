"""Killed at every step of a round, a site ends with the bits of one that was not."""

import numpy as np
import pytest
import tiny_study
import torch
from safetensors.torch import load_file, save_file

from fedcad.client import round_checkpoint
from fedcad.client.round_checkpoint import RoundCheckpoint, StopRequested, active_checkpoint, checkpointed
from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.parameters import named_tensors

SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
PLAIN_SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.0}
ADAM = {"name": "adam", "learning_rate": 0.003}
ADAMW = {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.1}
MODEL = {
    "name": "cnn",
    "convolutions": [{"features": 4}, {"features": 6}],
    "fully_connected": [8],
    "dropout": 0.4,
    "norm": "batch",
}
AUGMENTATION = {"rotation_degrees": 10, "shift": 0.05, "horizontal_flip": True}
STEPS = 6


def study(optimizer=SGD, model=MODEL):
    training = {"optimizer": optimizer, "batch_size": 4, "local_epochs": 2}
    return tiny_study.make_study(training=training, model=model, augmentation=AUGMENTATION)


class Killed(Exception):  # noqa: N818 - stands for kill -9
    """The process ended here."""


class DyingCases(tiny_study.MemoryCases):
    """Cases of a process that is killed while it reads the batch after so many."""

    def __init__(self, dies_after=None):
        super().__init__({"train": 10})
        self.left = dies_after
        self.asked = 0

    def inputs(self, part, indices):
        if self.left is not None and self.asked == self.left:
            raise Killed
        self.asked += 1
        return super().inputs(part, indices)


def train(contract, data, checkpoint=None):
    """Train in what could be a new process: new networks, other states of all generators."""
    torch.manual_seed(int(torch.randint(2**31, ())))
    bench = Workbench(contract)
    trainer = LocalTrainer(bench, data, site="a", round_number=2)
    with checkpointed(checkpoint):
        final = trainer.train(contract.initial)
    assert active_checkpoint() is None
    everything = {name: tensor.detach().clone() for name, tensor in named_tensors(bench.networks)}
    return final, everything, trainer.steps


def same(first, second):
    return (
        torch.equal(first[0], second[0])
        and first[1].keys() == second[1].keys()
        and all(torch.equal(first[1][name], second[1][name]) for name in first[1])
        and first[2] == second[2]
    )


@pytest.mark.parametrize("optimizer", [SGD, PLAIN_SGD, ADAM, ADAMW], ids=["momentum", "sgd", "adam", "adamw"])
def test_killed_at_every_step(optimizer, tmp_path):
    contract = freeze(study(optimizer))
    undisturbed = train(contract, DyingCases())
    assert undisturbed[2] == STEPS
    for killed in range(STEPS):
        path = tmp_path / str(killed)
        with pytest.raises(Killed):
            train(contract, DyingCases(killed), RoundCheckpoint(path, interval_s=0))
        data = DyingCases()
        assert same(train(contract, data, RoundCheckpoint(path, interval_s=0)), undisturbed)
        assert data.asked == STEPS - killed


def test_killed_again_and_again(tmp_path):
    contract, tries = freeze(study()), 0
    undisturbed = train(contract, DyingCases())
    while True:
        try:
            found = train(contract, DyingCases(1), RoundCheckpoint(tmp_path / "c", interval_s=0))
            break
        except Killed:
            tries += 1
    assert same(found, undisturbed)
    assert tries == STEPS - 1


def test_dropout_and_augmentation_are_drawn_on(tmp_path):
    """Without the generators' states the bits would differ: what the other tests compare is not vacuous."""
    contract = freeze(study())
    undisturbed = train(contract, DyingCases())
    for lost in ("random/dropout", "random/augmentation", "optimizer/0/0/momentum_buffer"):
        path = tmp_path / lost.replace("/", " ")
        with pytest.raises(Killed):
            train(contract, DyingCases(3), RoundCheckpoint(path, interval_s=0))
        tensors = load_file(path)
        other = torch.Generator().manual_seed(5).get_state() if "random" in lost else tensors[lost] * 0
        _rewrite(path, tensors | {lost: other})
        assert not same(train(contract, DyingCases(), RoundCheckpoint(path, interval_s=0)), undisturbed)


def _rewrite(path, tensors):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    save_file(tensors, path, metadata=metadata)


def test_asked_to_stop_it_stops_after_the_step_and_goes_on(tmp_path):
    contract, stops = freeze(study(ADAM)), 0
    undisturbed, path = train(contract, DyingCases()), tmp_path / "c"
    while True:
        data = DyingCases()
        stopping = RoundCheckpoint(path, interval_s=1e9, is_stopping=lambda data=data: data.asked == 2)
        try:
            found = train(contract, data, stopping)
            break
        except StopRequested:
            stops += 1
            assert data.asked == 2
    assert same(found, undisturbed)
    assert stops == 3


def test_interval_is_that_of_the_clock_and_nothing_is_written_before(tmp_path):
    now, written, path = [0.0], [], tmp_path / "c"

    class Ticking(DyingCases):
        def inputs(self, part, indices):
            now[0] += 25.0
            written.append(path.exists())
            path.unlink(missing_ok=True)
            return super().inputs(part, indices)

    train(freeze(study()), Ticking(), RoundCheckpoint(path, interval_s=50, clock=lambda: now[0]))
    assert written == [False, False, True, False, True, False]
    assert path.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other model", "other version", "no optimizer", "text"])
def test_what_cannot_be_used_begins_anew(damage, tmp_path):
    contract, path = freeze(study(ADAM)), tmp_path / "c"
    undisturbed = train(contract, DyingCases())
    with pytest.raises(Killed):
        train(contract, DyingCases(3), RoundCheckpoint(path, interval_s=0))
    content, tensors = path.read_bytes(), load_file(path)
    if damage == "other model":
        _rewrite(path, tensors | {"flat": torch.zeros(3)})
    elif damage == "no optimizer":
        _rewrite(path, tensors | {"optimizer/7/0/step": torch.zeros(())})
    elif damage == "other version":
        path.write_bytes(content.replace(b"fedcad ", b"fedcat ", 1))
    else:
        path.write_bytes({"cut": content[:-9], "empty": b"", "text": b"no tensors at all"}[damage])
    data = DyingCases()
    assert same(train(contract, data, RoundCheckpoint(path, interval_s=0)), undisturbed)
    assert data.asked == STEPS


def test_full_disk_does_not_end_the_training(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    contract = freeze(study())
    undisturbed = train(contract, DyingCases())
    monkeypatch.setattr(round_checkpoint, "write_bytes", full)
    assert same(train(contract, DyingCases(), RoundCheckpoint(tmp_path / "c", interval_s=0)), undisturbed)
    with pytest.raises(StopRequested):
        train(contract, DyingCases(), RoundCheckpoint(tmp_path / "c", interval_s=0, is_stopping=lambda: True))


def test_file_is_removed_and_interrupted_writes_too(tmp_path):
    path = tmp_path / "c"
    (tmp_path / ".c.0.unfinished").write_bytes(b"torn")
    checkpoint = RoundCheckpoint(path, interval_s=0)
    train(freeze(study()), DyingCases(), checkpoint)
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_second_training_of_a_round_does_not_take_the_first_ones_file(tmp_path):
    contract = freeze(study())
    undisturbed = train(contract, DyingCases())
    checkpoint = RoundCheckpoint(tmp_path / "c", interval_s=0)
    assert same(train(contract, DyingCases(), checkpoint), undisturbed)
    data = DyingCases()
    assert same(train(contract, data, checkpoint), undisturbed)
    assert data.asked == STEPS
    assert np.isfinite(undisturbed[0].numpy()).all()
