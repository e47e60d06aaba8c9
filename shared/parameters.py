"""Networks and the exchanged vector: flatten, load, and train on one flat tensor.

Why flat: arithmetic on updates, optimizers and messages then touch one vector instead of hundreds of arrays.
"""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.layout import Entry, Layout, Norm, Role

Networks = Mapping[str, nn.Module]
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

# Vectors of messages are read-only on purpose; torch warns that it cannot enforce that.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)


def tensor_of(vector: NDArray[np.float32]) -> Tensor:
    """Return a message's vector as a tensor that shares its memory; never write to it."""
    return torch.from_numpy(np.ascontiguousarray(vector))


def named_tensors(networks: Networks) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and persistent buffer as ``network/key``, in order of definition."""
    for network, module in networks.items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            yield f"{network}/{key}", tensor


def layout_of(networks: Networks, *, personal: frozenset[str] = frozenset()) -> Layout:
    """Describe networks as a layout.

    Args:
        networks: Named networks.
        personal: Names of entries that stay at the site.

    Raises:
        ValueError: A personal name does not exist.
    """
    entries, norms = [], _norms(networks)
    for name, tensor in named_tensors(networks):
        dtype, norm = str(tensor.dtype).removeprefix("torch."), norms.get(name, Norm.NONE)
        entries.append(Entry(name, tuple(tensor.shape), dtype, _role(name, tensor, personal), norm))
    unknown = personal - {entry.name for entry in entries}
    if unknown:
        raise ValueError(f"personal entries {sorted(unknown)} are not in the model")
    return Layout(tuple(entries))


def _norms(networks: Networks) -> dict[str, Norm]:
    """Return the kind of normalisation of each tensor that belongs to one, by its name."""
    return {
        f"{network}/{path}{'.' if path else ''}{key}": kind
        for network, module in networks.items()
        for path, layer in module.named_modules(remove_duplicate=False)
        if (kind := norm_of(layer)) is not Norm.NONE
        for key in layer.state_dict()
    }


def norm_of(layer: nn.Module) -> Norm:
    """Return which normalisation of torch's a layer is, or a subclass of; anything else is none."""
    if isinstance(layer, _BATCH_NORMS):
        return Norm.BATCH
    if isinstance(layer, _INSTANCE_NORMS):
        return Norm.INSTANCE
    if isinstance(layer, nn.GroupNorm):
        return Norm.INSTANCE if layer.num_groups == layer.num_channels else Norm.GROUP
    return Norm.LAYER if isinstance(layer, nn.LayerNorm | nn.RMSNorm) else Norm.NONE


def _role(name: str, tensor: Tensor, personal: frozenset[str]) -> Role:
    if name in personal:
        return Role.LOCAL
    if not isinstance(tensor, nn.Parameter):
        return Role.BUFFER
    return Role.TRAINED if tensor.requires_grad else Role.FROZEN


def device_of(networks: Networks) -> torch.device:
    """Return where networks are: all tensors of a study's networks are on one device."""
    return next((tensor.device for _, tensor in named_tensors(networks)), torch.device("cpu"))


def flatten(networks: Networks, layout: Layout) -> Tensor:
    """Copy the exchanged entries into a new flat float32 vector on the processor, shape (layout.size,)."""
    tensors = dict(named_tensors(networks))
    # Gathered where the networks are: one copy from a GPU, not one for each entry.
    vector = torch.empty(layout.size, dtype=torch.float32, device=device_of(networks))
    for entry, place in layout.slices():
        vector[place] = tensors[entry.name].detach().reshape(-1)
    return vector.cpu()


def load(networks: Networks, layout: Layout, vector: Tensor) -> None:
    """Copy a flat vector, shape (layout.size,), into the exchanged entries of networks, wherever these are.

    Raises:
        InvalidUpdate: The vector's length is not the layout's.
    """
    check_length(layout, vector)
    tensors, vector = dict(named_tensors(networks)), vector.to(device_of(networks))
    with torch.no_grad():
        for entry, place in layout.slices():
            tensors[entry.name].copy_(vector[place].view(entry.shape))


def check_length(layout: Layout, vector: Tensor) -> None:
    """Raise InvalidUpdate unless the vector has the layout's length."""
    if tuple(vector.shape) != (layout.size,):
        raise InvalidUpdate(
            f"the parameter vector has shape {tuple(vector.shape)}; the study's model needs ({layout.size},)"
        )


class FlatParameters:
    """Trained parameters of networks as views of one flat tensor, with their gradients in another.

    Attributes:
        values: float32, shape (layout.trained_size,); the networks' parameters are views of it.
        gradients: float32, same shape; back-propagation accumulates into it.

    Both are where the networks are when this is made; networks that are moved later leave them behind.
    """

    def __init__(self, networks: Networks, layout: Layout) -> None:
        """Move the trained parameters of ``networks`` into one flat tensor, keeping their values."""
        device = device_of(networks)
        self.values = torch.empty(layout.trained_size, device=device)
        self.gradients = torch.zeros(layout.trained_size, device=device)
        self._places: dict[str, list[slice]] = {name: [] for name in networks}
        tensors = dict(named_tensors(networks))
        for entry, place in layout.slices():
            if entry.role is Role.TRAINED:
                self._adopt(tensors[entry.name], place, entry.shape)
                self._places[entry.name.partition("/")[0]].append(place)

    def _adopt(self, parameter: Tensor, place: slice, shape: tuple[int, ...]) -> None:
        self.values[place] = parameter.detach().reshape(-1)
        parameter.data = self.values[place].view(shape)
        parameter.grad = self.gradients[place].view(shape)

    def range_of(self, network: str) -> slice:
        """Return the contiguous place of one network's trained parameters."""
        places = self._places[network]
        return slice(places[0].start, places[-1].stop) if places else slice(0, 0)
