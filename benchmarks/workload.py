"""The work of the simulation benchmark, prepared once and not timed: images, orders, first parameters.

Every column reads the same files: FedCAD its emulated hospitals (with filled caches), the others arrays.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain_networks import BUILDERS, CLASSES, CNN_FEATURES, CNN_HIDDEN
from fedcad.client.archive.site_data import open_archive
from fedcad.shared.config.load import load_site
from fedcad.shared.config.models import ConfigurableCNN, ConvolutionConfig, ModelConfig, ResNet18
from fedcad.shared.config.study import (
    DataConfig,
    EvaluationConfig,
    FedAvgConfig,
    OptimizerConfig,
    PreprocessingConfig,
    SplitConfig,
    StudyConfig,
    TaskConfig,
    TrainingConfig,
)
from fedcad.shared.contract import Contract
from fedcad.shared.seeds import torch_generator
from fedcad.simulations import studies
from fedcad.simulations.archive_writer import write_archives
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.partition import Partition

SEED = 1
LEARNING_RATE = 0.01
MOST_ROUNDS = 10
PASSES_A_CASE = 10
"""Local steps over steps that see each case once, in the small network."""


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        network: ``cnn`` or ``resnet18``.
        sites: Number of sites.
        size: Rows and columns of the images.
        steps: Steps of each site in each round.
        batch: Cases in a step.
        cases: Training cases of each site; a multiple of the batch, so that all steps are alike.
    """

    network: str
    sites: int
    size: int
    steps: int
    batch: int
    cases: int


def workload(network: str, sites: int) -> Workload:
    """Return the work for a network: many small steps, or few large ones."""
    if network == "cnn":
        return Workload(network, sites, size=32, steps=20, batch=32, cases=64)
    return Workload(network, sites, size=64, steps=2, batch=8, cases=16)


def study_of(work: Workload, rounds: int) -> StudyConfig:
    """Return the study that does this work and nothing else: no validation, no test."""
    model: ModelConfig = ResNet18(name="resnet18")
    if work.network == "cnn":
        convolutions = tuple(ConvolutionConfig(features=features) for features in CNN_FEATURES)
        model = ConfigurableCNN(name="cnn", convolutions=convolutions, fully_connected=(CNN_HIDDEN,))
    return StudyConfig(
        name="benchmark",
        seed=SEED,
        task=TaskConfig(kind="classification", classes=tuple(f"class{n}" for n in range(CLASSES))),
        data=DataConfig(split=SplitConfig(train=1.0, validation=0.0, test=0.0)),
        preprocessing=PreprocessingConfig(size=work.size),
        model=model,
        training=TrainingConfig(
            optimizer=OptimizerConfig(learning_rate=LEARNING_RATE),
            batch_size=work.batch,
            local_steps=work.steps,
        ),
        algorithm=FedAvgConfig(name="fedavg"),
        rounds=rounds,
        evaluation=EvaluationConfig(selection="last_round", bootstrap_replicates=0),
    )


def prepare(work: Workload, folder: Path) -> None:
    """Write hospitals, contract and arrays below a folder, unless they are there."""
    if (folder / "work.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sites = {f"site{number:02d}": _records(work, number) for number in range(work.sites)}
    archives = write_archives(Partition(sites=sites), root=folder / "hospitals")
    study = study_of(work, MOST_ROUNDS)
    contract = studies.federated(study, SEED)
    images, labels = [], []
    for name in sorted(archives):
        site_file = archives[name].site_file
        data = open_archive(load_site(site_file), site_file.parent, study)
        images.append(data.inputs("train", range(work.cases))["image"].numpy())
        labels.append([int(label.removeprefix("class")) for label in data.labels("train")])
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "labels.npy", np.array(labels, dtype=np.int64))
    np.save(folder / "orders.npy", np.stack([_orders(work, name) for name in sorted(archives)]))
    np.save(folder / "initial.npy", contract.initial.numpy())
    _check_networks(work, contract, images[0])
    files = {name: str(archive.site_file) for name, archive in sorted(archives.items())}
    plain = {"work": asdict(work), "site_files": files, "learning_rate": LEARNING_RATE}
    (folder / "work.json").write_text(json.dumps(plain), encoding="utf-8")


def _records(work: Workload, site: int) -> tuple[Record, ...]:
    generator = np.random.default_rng([SEED, site])
    records = []
    for number in range(work.cases):
        label = number % CLASSES
        pixels = generator.integers(0, 200, (work.size, work.size)).astype(np.uint8) + np.uint8(40 * label)
        name = f"{site:02d}-{number:04d}"
        records.append(
            Record(
                record_id=name,
                content_id=hashlib.sha256(pixels.tobytes()).hexdigest(),
                patient_id=name,
                label=f"class{label}",
                folder="benchmark",
                read_pixels=partial(np.copy, pixels),
            )
        )
    return tuple(records)


def _orders(work: Workload, site: str) -> np.ndarray:
    """Case numbers of every step, shape (rounds, steps, batch), in the order in which FedCAD draws them."""
    rounds = []
    for number in range(1, MOST_ROUNDS + 1):
        generator = torch_generator(SEED, "batches", site, number)
        passes = -(-work.steps * work.batch // work.cases)
        order = torch.cat([torch.randperm(work.cases, generator=generator) for _ in range(passes)])
        rounds.append(order[: work.steps * work.batch].view(work.steps, work.batch).numpy())
    return np.stack(rounds)


def _check_networks(work: Workload, contract: Contract, images: np.ndarray) -> None:
    """Refuse to compare networks that are not the same function of the same parameters."""
    from benchmarks.plain_networks import load_flat
    from fedcad.client.workbench import Workbench
    from fedcad.shared.parameters import load

    bench, plain = Workbench(contract), BUILDERS[work.network]()
    load(bench.networks, contract.layout, contract.initial)
    load_flat(plain, contract.initial)
    ours = bench.networks["classifier"](torch.from_numpy(images[:4]))
    if not torch.equal(ours, plain(torch.from_numpy(images[:4]))):
        raise ValueError(f"the plain {work.network} is not FedCAD's")
