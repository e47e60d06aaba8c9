"""A network as a table: layers, shapes, parameters and multiply-accumulates.

Shapes: B cases, C channels, H rows, W columns.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerSummary:
    """One layer, in the order of its first call.

    Attributes:
        name: Dotted name inside the network.
        kind: Class of the layer.
        output_shape: Shape of the output for one case, without the case axis.
        parameters: Its own parameters, shared ones counted where they are met first.
        macs: Multiply-accumulates for one case.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelSummary:
    """A network's layers and totals.

    Attributes:
        layers: One row for each call of a layer.
        parameters: All parameters, each once.
        trainable_parameters: Those that training changes.
        macs: Multiply-accumulates of convolutions and linear layers for one case; norms, activations,
            poolings and additions are not counted, as is usual in publications.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    trainable_parameters: int
    macs: int


def summarise(model: nn.Module, size: int, channels: int = 1) -> ModelSummary:
    """Count a network's layers by running a copy of it without numbers (torch's meta device).

    The network itself, its mode and torch's generators stay as they are.

    Args:
        model: A network over (B, channels, size, size).
        size: Height and width of the input in pixels.
        channels: Channels of the input.

    Returns:
        The table, for one case.
    """
    outline = copy.deepcopy(model).to("meta").eval()
    rows: list[LayerSummary] = []
    with _recording(outline, rows), torch.no_grad():
        outline(torch.empty(1, channels, size, size, device="meta"))
    parameters = list(model.parameters())
    return ModelSummary(
        layers=tuple(rows),
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        macs=sum(row.macs for row in rows),
    )


@contextmanager
def _recording(model: nn.Module, rows: list[LayerSummary]) -> Iterator[None]:
    """Write a row for each call of a layer that has parameters of its own or no layers below it."""
    seen: set[nn.Parameter] = set()
    handles = [
        module.register_forward_hook(_row_writer(name, rows, seen))
        for name, module in model.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _row_writer(
    name: str, rows: list[LayerSummary], seen: set[nn.Parameter]
) -> Callable[[nn.Module, Any, Tensor], None]:
    """Return the hook of one layer."""

    def write(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
        seen.update(own)
        rows.append(
            LayerSummary(
                name=name,
                kind=type(module).__name__,
                output_shape=tuple(output.shape[1:]),
                parameters=sum(parameter.numel() for parameter in own),
                macs=_macs(module, output),
            )
        )

    return write


def _macs(module: nn.Module, output: Tensor) -> int:
    """Return multiply-accumulates of one layer for one case: outputs times the inputs behind each."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        # weight is (outputs, inputs / groups, kernel …)
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
