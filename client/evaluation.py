"""Evaluation of models on a site's cases, as exactly mergeable statistics."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.case_source import CaseSource, Part
from fedcad.client.device import moved
from fedcad.client.workbench import Workbench
from fedcad.shared.parameters import load

BATCH = 64
"""Cases side by side; fixed, since another number could change the last bits."""


def outputs_of(bench: Workbench, model: Tensor, data: CaseSource, part: Part) -> NDArray[np.float32]:
    """Return one model's outputs for all cases of a part, first axis the case; there must be some.

    Args:
        bench: Networks to load the model into.
        model: Flat parameter vector.
        data: The site's cases.
        part: Which of them.
    """
    load(bench.networks, bench.contract.layout, model)
    for network in bench.networks.values():
        network.eval()
    cases, found = len(data.patients(part)), []
    with torch.inference_mode():
        for first in range(0, cases, BATCH):
            inputs = data.inputs(part, range(first, min(first + BATCH, cases)))
            found.append(bench.task.predict(bench.networks, moved(inputs, bench.device)).cpu().numpy())
    return np.concatenate(found)


def evaluate(
    bench: Workbench,
    models: Sequence[Tensor],
    *,
    data: CaseSource,
    part: Part,
    weights: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return statistics of one model, or of the mean output of several (an ensemble).

    Args:
        bench: Networks to load each model into.
        models: Flat parameter vectors, at least one.
        data: The site's cases.
        part: Which of them; there must be some.
        weights: Bootstrap weights, shape (1 + replicates, cases).

    Returns:
        int64, shape (1 + replicates, statistics.size).
    """
    targets = bench.task.targets(data.labels(part))
    total = np.zeros(1)
    for model in models:
        total = total + outputs_of(bench, model, data, part).astype(np.float64)
    mean: NDArray[np.float32] = (total / len(models)).astype(np.float32)
    return bench.task.collect(mean, targets, weights)
