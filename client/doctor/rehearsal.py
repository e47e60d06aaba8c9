"""A study tried at a hospital without leaving a trace: which cases it gets, and a few real training steps.

Runs as ``python -m fedcad.client.doctor.rehearsal`` in a process of its own: see :mod:`isolated`.
"""

import contextlib
import dataclasses
import math
import re
import resource
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.archive.cache import TensorCache
from fedcad.client.archive.cases import Case, build_cases
from fedcad.client.archive.index import index_rejects, indexed_images, update_index
from fedcad.client.archive.labels import read_labels
from fedcad.client.archive.site_data import SiteData
from fedcad.client.archive.splits import PARTS, Part, split_cases
from fedcad.client.device import open_device, peak_device_bytes, shortage, wait_for
from fedcad.client.doctor.isolated import Reporter, serve
from fedcad.client.doctor.sample import summarise
from fedcad.client.doctor.scratch import scratch_folder
from fedcad.client.doctor.study_file import StudyFile, load_study_file
from fedcad.client.evaluation import outputs_of
from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract, Terms
from fedcad.shared.errors import DataError
from fedcad.shared.parameters import flatten

STEPS = 4
"""Steps taken; the first, which warms up, is not timed."""
MOST_IMAGES = 32
"""Images decoded for these steps; a larger batch repeats them."""


class Repeated:
    """A few training cases, repeated until they are as many as a batch needs."""

    def __init__(self, data: SiteData, cases: int) -> None:
        """Repeat the training cases of a site."""
        self._data = data
        self._order = [number % len(data.labels("train")) for number in range(cases)]

    def patients(self, part: Part) -> NDArray[np.int64]:
        """Return each case's patient."""
        return self._data.patients(part)[self._order]

    def labels(self, part: Part) -> list[str]:
        """Return each case's label."""
        labels = self._data.labels(part)
        return [labels[number] for number in self._order]

    def inputs(self, part: Part, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return network inputs of some cases."""
        return self._data.inputs(part, [self._order[number] for number in indices])

    def summary(self) -> dict[str, Any]:
        """Return nothing: these are not the site's cases."""
        return {}


def rehearse(request: dict[str, Any], reporter: Reporter) -> None:
    """Count a study's cases and train some steps; report ``cases``, then ``training``.

    Args:
        request: ``study``, ``archive``, ``labels`` and ``state`` (paths), ``site`` (name), ``threads``,
            ``device``.
        reporter: Where to; nothing reported says anything about a patient.

    Guarantees:
        Nothing is left on the disk, and what the node keeps there is not changed.

    Raises:
        FedCADError: The study, the archive, the label table or the device cannot be used.
    """
    torch.set_num_threads(request["threads"])
    given = load_study_file(Path(request["study"]))
    archive, state = Path(request["archive"]), Path(request["state"])
    with scratch_folder(state) as scratch:
        database = scratch / "index.sqlite"
        reuse_index(state / "index.sqlite", database)
        parts = _count(request, given.study, (archive, database), reporter)
        cases = parts["train"]
        if cases:
            data = _decode(given.study, _spread(cases), scratch=scratch, reporter=reporter)
            device = open_device(request["device"])
            try:
                report = _train(given, data, device=device, reporter=reporter, of=parts)
            except torch.OutOfMemoryError as error:
                raise shortage(error, device) from None
            reporter.report("training", report)


def reuse_index(known: Path, copy: Path) -> None:
    """Copy the node's index, if it has one that can be copied, so that only new files are read."""
    if not known.is_file():
        return
    try:
        if known.with_name(f"{known.name}-wal").exists():
            uri = f"{known.resolve().as_uri()}?mode=ro"
            with (
                contextlib.closing(sqlite3.connect(uri, uri=True)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        else:
            # Opened by SQLite, it would get files beside it.
            shutil.copyfile(known, copy)
    except (OSError, sqlite3.DatabaseError):
        copy.unlink(missing_ok=True)


def _count(
    request: dict[str, Any], study: StudyConfig, places: tuple[Path, Path], reporter: Reporter
) -> dict[Part, tuple[Case, ...]]:
    """Index the archive, join it with the labels, divide it as the study does, and report the numbers."""
    archive, database = places
    update_index(
        archive, database, progress=lambda done, total: reporter.tell(f"reading headers: {done} of {total}")
    )
    table = build_cases(
        indexed_images(database),
        read_labels(Path(request["labels"])),
        study.data,
        archive=archive,
        classes=study.task.classes,
    )
    parts = split_cases(table.cases, study.data.split, seed=study.seed, site=request["site"])
    reporter.report(
        "cases",
        {
            "patients": len({case.patient for case in table.cases}),
            "parts": {part: dict(Counter(case.label for case in parts[part])) for part in PARTS},
            "left_out": summarise([*index_rejects(database), *table.rejects]),
        },
    )
    return parts


def _spread(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Choose cases over the whole range."""
    step = max(1, len(cases) // MOST_IMAGES)
    return tuple(cases[::step][:MOST_IMAGES])


@dataclasses.dataclass(frozen=True)
class _Decoded:
    """Training cases whose images were decoded, and how long one image took."""

    data: SiteData
    seconds: float


def _decode(study: StudyConfig, cases: tuple[Case, ...], *, scratch: Path, reporter: Reporter) -> _Decoded:
    """Decode some training cases."""
    reporter.tell(f"decoding {len(cases)} images")
    start = time.monotonic()
    cache = TensorCache(scratch / "tensors", study.preprocessing)
    lost = {reject.subject for reject in cache.fill(cases)}
    seconds = (time.monotonic() - start) / len(cases)
    usable = tuple(case for case in cases if case.case_id not in lost)
    if not usable:
        raise DataError("none of the images tried can be decoded; see 'decoding'")
    data = SiteData(
        {"train": usable, "validation": (), "test": ()},
        cache=cache,
        preprocessing=study.preprocessing,
        rejects=(),
    )
    return _Decoded(data, seconds)


def _train(
    given: StudyFile,
    decoded: _Decoded,
    *,
    device: torch.device,
    reporter: Reporter,
    of: dict[Part, tuple[Case, ...]],
) -> dict[str, Any]:
    """Train a few steps, evaluate, and return times and memory."""
    study, data = given.study, decoded.data
    reporter.tell("building the network")
    bench = Workbench(_shortened(given), device=device)
    batch = min(study.training.batch_size, len(of["train"]))
    step_s, model = _steps(bench, Repeated(data, batch), reporter)
    start = time.monotonic()
    outputs_of(bench, model, data, "train")
    evaluation_s = (time.monotonic() - start) / len(data.labels("train"))
    return {
        "batch": batch,
        "decoding_s": decoded.seconds,
        "step_s": step_s,
        "steps": steps_of_round(study, len(of["train"])),
        "evaluation_s": evaluation_s * len(of["validation"]),
        "memory_bytes": peak_memory_bytes(),
        "device": str(device),
        "device_bytes": peak_device_bytes(device),
        "parameters": bench.contract.layout.size,
    }


def _shortened(given: StudyFile) -> Contract | Terms:
    """Return the study with a few steps a round; the network must have a given contract's layout."""
    training = given.study.training.model_copy(update={"local_epochs": None, "local_steps": STEPS})
    study = given.study.model_copy(update={"training": training})
    return freeze(study) if given.terms is None else dataclasses.replace(given.terms, study=study)


def _steps(bench: Workbench, data: Repeated, reporter: Reporter) -> tuple[float, Tensor]:
    """Train; return the seconds of one step after the first, and the model."""
    trainer = LocalTrainer(bench, data, site="rehearsal", round_number=1)
    ends: list[float] = []

    def note(_: Tensor, __: Tensor) -> None:
        wait_for(bench.device)
        ends.append(time.monotonic())
        reporter.tell(f"training step {len(ends)} of {STEPS}")

    start = flatten(bench.networks, bench.contract.layout)
    model = trainer.train(start, note)
    return (ends[-1] - ends[0]) / max(len(ends) - 1, 1), model


def steps_of_round(study: StudyConfig, cases: int) -> int:
    """Return how many steps a site with so many training cases takes in one round."""
    training = study.training
    if training.local_steps is not None:
        return training.local_steps
    return (training.local_epochs or 1) * math.ceil(cases / training.batch_size)


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had in use.

    Why not getrusage alone: on Linux it counts what the parent used before this program was started.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    serve(rehearse)
