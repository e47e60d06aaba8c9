"""Training and evaluation on a GPU: a pretended one, bit for bit as on the processor; a real one, nearly.

The pretended one finds tensors that are not moved, see :mod:`pretend_gpu`. Tests marked ``gpu`` need one.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import tiny_study
import torch
from pretend_gpu import GPU, pretended_gpu
from safetensors.torch import load_file
from toy_algorithms import plan_for

from fedcad.client import device as devices
from fedcad.client import evaluation, training
from fedcad.client.device import CPU, moved, open_device, peak_device_bytes, shortage, wait_for
from fedcad.client.evaluation import evaluate, outputs_of
from fedcad.client.node import Node
from fedcad.client.round_checkpoint import RoundCheckpoint, checkpointed
from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.errors import ConfigError, DeviceMemoryError
from fedcad.shared.messages import Update
from fedcad.shared.parameters import FlatParameters, flatten, load, named_tensors
from fedcad.shared.tasks.classification import Classification

HAS_GPU = torch.cuda.is_available()
REAL = pytest.param("real", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")])
SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
OPTIMIZERS = (SGD, {"name": "adam", "learning_rate": 0.003}, {"name": "adamw", "learning_rate": 0.003})
BATCH_NORM = {"name": "cnn", "convolutions": [{"features": 4}, {"features": 6}], "norm": "batch"}
GROUP_NORM = BATCH_NORM | {"norm": "group"}
AUGMENTATION = {"rotation_degrees": 10, "shift": 0.05, "horizontal_flip": True}
ALGORITHMS = (
    {"name": "fedavg"},
    {"name": "fedprox", "proximal_mu": 0.1},
    {"name": "fedbn"},
    {"name": "scaffold"},
    {"name": "fedopt", "server_optimizer": {"name": "adam", "learning_rate": 0.01}},
)
STEPS = 6


@pytest.fixture(params=["pretended", REAL])
def gpu(request, monkeypatch):
    """Return what to enter to work on a GPU: the numbers are the processor's, or nearly."""
    if request.param == "real":
        open_device("cuda:0")
        return nullcontext
    return lambda: pretended_gpu(monkeypatch)


def make_study(*, algorithm=ALGORITHMS[0], optimizer=SGD, model=None, **more):
    if algorithm["name"] == "scaffold":
        optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.0}
    plain = {"optimizer": optimizer, "batch_size": 4, "local_epochs": 2, "class_weights": [1.0, 2.0, 0.5]}
    model = model or (GROUP_NORM if algorithm["name"] in ("scaffold", "fedopt") else BATCH_NORM)
    return tiny_study.make_study(
        algorithm=algorithm, model=model, training=plain, augmentation=AUGMENTATION, **more
    )


def close(ours, theirs):
    """Compare as vectors: a GPU adds in another order, and Adam's first steps magnify gradients near 0."""
    ours, theirs = (torch.as_tensor(each).double() for each in (ours, theirs))
    assert torch.linalg.vector_norm(ours - theirs) <= 0.02 * torch.linalg.vector_norm(theirs) + 1e-6


def rounds(contract, place, device):
    """Two rounds and a test of one site; everything that leaves, and what stays."""
    bench = Workbench(contract, device=device)
    assert {tensor.device for _, tensor in named_tensors(bench.networks)} == {device}
    assert bench.flat.values.device == bench.flat.gradients.device == device
    node, algorithm = Node("a", tiny_study.spread_cases(test=70), bench, state=place), bench.algorithm
    state, answers = algorithm.init_server(contract.initial, contract.layout), []
    for number in (1, 2):
        asked = plan_for(
            node,
            algorithm.broadcast(state),
            work=("validate", "train"),
            round_number=number,
            last=number - 1,
        )
        answers.append(node.answer(*asked))
        state = state | {"model": state["model"] + torch.from_numpy(answers[-1].vectors["model"])}
    asked = plan_for(node, {"model": state["model"]}, work=("test",), round_number=0, selected_round=1)
    answers.append(node.answer(*asked))
    assert all(isinstance(answer, Update) for answer in answers)
    kept = {
        f"{path.name}/{name}": tensor
        for path in sorted(place.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    return answers, kept


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda plain: plain["name"])
def test_rounds_and_test_of_a_node_with_every_algorithm(algorithm, gpu, tmp_path):
    """Personal entries (FedBN's norms), control variates and evaluation included."""
    contract = freeze(make_study(algorithm=algorithm))
    expected, kept = rounds(contract, tmp_path / "cpu", CPU)
    with gpu() as pretended:
        found, kept_here = rounds(contract, tmp_path / "gpu", GPU)
    assert bool(kept) == (algorithm["name"] in ("fedbn", "scaffold"))
    assert kept.keys() == kept_here.keys()
    for name, tensor in kept.items():
        close(kept_here[name], tensor)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.vectors.keys() == theirs.vectors.keys()
        assert ours.statistics.keys() == theirs.statistics.keys()
        for name, vector in theirs.vectors.items():
            close(ours.vectors[name], vector)
            assert np.abs(vector).max() > 0
        for name, statistics in theirs.statistics.items():
            assert ours.statistics[name].shape == statistics.shape
            assert pretended is None or np.array_equal(ours.statistics[name], statistics)


def trained(contract, device, checkpoint=None, data=None):
    bench = Workbench(contract, device=device)
    trainer = LocalTrainer(bench, data or tiny_study.spread_cases(), site="a", round_number=2)
    assert trainer.device == device
    with checkpointed(checkpoint):
        final = trainer.train(contract.initial)
    assert final.device == CPU
    return bench, final


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda plain: plain["name"])
def test_training_with_every_optimizer(optimizer, gpu):
    contract = freeze(make_study(optimizer=optimizer))
    _, expected = trained(contract, CPU)
    with gpu():
        _, found = trained(contract, GPU)
    close(found, expected)
    assert not torch.equal(found, contract.initial)


@pytest.mark.parametrize("model", [BATCH_NORM | {"dropout": 0.4}, {"name": "logistic-regression"}])
def test_on_the_pretended_gpu_bits_are_the_processors(model, monkeypatch):
    """Every number in the same order: only its place may differ."""
    contract, data = freeze(make_study(model=model)), tiny_study.spread_cases(test=70)
    bench, expected = trained(contract, CPU)
    outputs = outputs_of(bench, expected, data, "test")
    weights = np.ones((1, 70), dtype=np.int64)
    statistics = evaluate(bench, [expected] * 2, data=data, part="test", weights=weights)
    with pretended_gpu(monkeypatch) as pretended:
        bench, found = trained(contract, GPU)
        assert torch.equal(found, expected)
        assert np.array_equal(outputs_of(bench, found, data, "test"), outputs)
        assert np.array_equal(
            evaluate(bench, [found] * 2, data=data, part="test", weights=weights), statistics
        )
        # The start and 6 batches of image and label at least.
        assert pretended.moves > 1 + 2 * STEPS


def test_outputs(gpu):
    contract, data = freeze(make_study()), tiny_study.spread_cases(test=70)
    expected = outputs_of(Workbench(contract), contract.initial, data, "test")
    with gpu():
        found = outputs_of(Workbench(contract, device=GPU), contract.initial, data, "test")
    close(found, expected)
    assert found.shape == (70, 3)


def test_networks_are_the_contracts_after_the_move(gpu):
    contract = freeze(make_study())
    with gpu():
        bench = Workbench(contract, device=GPU)
        vector = flatten(bench.networks, contract.layout)
        assert vector.device == CPU
        assert torch.equal(vector, contract.initial)
        bench.flat.values.zero_()
        assert not flatten(bench.networks, contract.layout)[: contract.layout.trained_size].any()


def test_personal_entries_come_and_go(gpu):
    contract = freeze(make_study(algorithm={"name": "fedbn"}))
    with gpu():
        bench = Workbench(contract, device=GPU)
        first = bench.first_personal()
        assert first
        assert {tensor.device for tensor in first.values()} == {CPU}
        own = {name.removeprefix("personal/"): tensor.float() + 1 for name, tensor in first.items()}
        bench.become(own)
        here = dict(named_tensors(bench.networks))
        for name, tensor in own.items():
            assert here[name].device == GPU
            assert torch.equal(here[name].detach().cpu().float(), tensor)


class Killed(Exception):  # noqa: N818 - stands for kill -9
    """The process ended here."""


class DyingCases(tiny_study.MemoryCases):
    """Cases of a process that is killed while it reads the batch after so many."""

    def __init__(self, left):
        super().__init__({"train": 10})
        self.left = left

    def inputs(self, part, indices):
        if not self.left:
            raise Killed
        self.left -= 1
        return super().inputs(part, indices)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda plain: plain["name"])
@pytest.mark.parametrize("killed", [1, 4])
def test_killed_inside_a_round_it_goes_on(optimizer, killed, gpu, tmp_path):
    contract = freeze(make_study(optimizer=optimizer, model=BATCH_NORM | {"dropout": 0.4}))
    path = tmp_path / "c"
    with gpu() as pretended:
        _, expected = trained(contract, GPU, data=DyingCases(STEPS))
        with pytest.raises(Killed):
            trained(contract, GPU, RoundCheckpoint(path, interval_s=0), DyingCases(killed))
        saved = load_file(path)
        assert {tensor.device for tensor in saved.values()} == {CPU}
        torch.rand(3, device=GPU)  # what the new process drew meanwhile
        _, found = trained(contract, GPU, RoundCheckpoint(path, interval_s=1e9), DyingCases(STEPS - killed))
        close(found, expected)
        if pretended is not None:
            assert torch.equal(found, expected)
            assert [state.tolist() for state in pretended.states] == [saved["random/gpu"].tolist()]


def test_checkpoint_of_the_processor_is_not_the_gpus(gpu, tmp_path):
    contract, path = freeze(make_study()), tmp_path / "c"
    with pytest.raises(Killed):
        trained(contract, CPU, RoundCheckpoint(path, interval_s=0), DyingCases(3))
    with gpu(), pytest.raises(Killed):
        # Two more than are left after the checkpoint, and too few for the whole round.
        trained(contract, GPU, RoundCheckpoint(path, interval_s=1e9), DyingCases(STEPS - 1))


MISSING = "two devices"


@pytest.mark.parametrize(
    ("place", "name", "stays"),
    [
        (training, "moved", lambda tensors, _: dict(tensors)),
        (evaluation, "moved", lambda tensors, _: dict(tensors)),
        (LocalTrainer, "device", property(lambda self: CPU)),
        (Classification, "_losses", None),
    ],
    ids=["training", "evaluation", "correction", "class weights"],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS[1:4:2], ids=lambda plain: plain["name"])
def test_each_move_is_needed(place, name, stays, algorithm, monkeypatch, tmp_path):
    """The pretence finds what is left out: here every move, one after the other."""
    losses = Classification._losses

    def unweighted(task, networks, batch):
        weights = task._class_weights
        losses(task, networks, batch)
        return losses(task, networks, batch) * weights[batch.targets["label"].cpu()]

    contract = freeze(make_study(algorithm=algorithm))
    monkeypatch.setattr(place, name, stays or unweighted)
    with pretended_gpu(monkeypatch), pytest.raises(RuntimeError, match=MISSING):
        rounds(contract, tmp_path, GPU)


def test_networks_moved_too_late_are_found(monkeypatch):
    contract = freeze(make_study())
    with pretended_gpu(monkeypatch):
        bench = Workbench(contract)
        bench.networks["classifier"].to(GPU)
        images = tiny_study.spread_cases().inputs("train", [0])["image"]
        with pytest.raises(RuntimeError, match=MISSING):
            bench.networks["classifier"](images)
        bench.networks["classifier"].to(GPU)
        flat = FlatParameters(bench.networks, contract.layout)
        load(bench.networks, contract.layout, contract.initial)
        assert flat.values.device == GPU
        with pytest.raises(TypeError, match="numpy"):
            flat.values.numpy()
        with pytest.raises(RuntimeError, match=MISSING):
            flat.values + contract.initial[: contract.layout.trained_size]


def test_processor_is_used_as_it_is():
    assert open_device("cpu") is CPU
    tensors = {"image": torch.rand(2)}
    assert moved(tensors, CPU)["image"] is tensors["image"]
    wait_for(CPU)
    assert peak_device_bytes(CPU) == 0


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_gpu_that_is_not_there_is_refused_in_plain_words(name):
    with pytest.raises(ConfigError, match=f"device: got {name}; torch .* set device: cpu"):
        open_device(name)


@pytest.mark.parametrize(
    ("is_available", "count", "name", "said"),
    [
        (False, 0, "cuda", "finds no NVIDIA GPU that it can use"),
        (True, 2, "cuda:2", r"this machine has 2 GPU\(s\), cuda:0 to cuda:1"),
        (True, 2, "cuda:1", "cuda:1 is there and cannot compute"),
    ],
)
@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_each_reason_is_said(monkeypatch, is_available, count, name, said):
    """Where torch is built for CUDA; the last is what a driver that is too old brings."""

    def broken(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(devices.torch, "ones", broken)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=said):
        open_device(name)


def test_memory_is_given_back_before_the_error_is_raised():
    held = []

    class Batch:
        def __del__(self):
            held.append("freed")

    def step():
        batch = Batch()  # noqa: F841 - stands for what a step holds
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has")

    with pytest.raises(DeviceMemoryError, match=r"cuda:0 is full \(asked for 20.00 MiB more\).*batch_size"):
        try:
            step()
        except torch.OutOfMemoryError as error:
            assert held == []
            explained = shortage(error, GPU)
            assert held == ["freed"]
            raise explained from None


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
def test_real_shortage_leaves_room():
    device = open_device("cuda")
    with pytest.raises(DeviceMemoryError, match="asked for"):
        try:
            torch.empty(2**50, device=device)
        except torch.OutOfMemoryError as error:
            raise shortage(error, device) from None
    assert peak_device_bytes(device) < 2**40
