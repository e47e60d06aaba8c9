"""What a site's model has beside the exchanged vector: personal entries, and what is never exchanged.

Why here: one process may work for many sites with the same networks. Personal entries (FedBN's norms, a local
head) are part of a site's state and are put in before every use; the rest starts each round as it was built.
"""

import torch
from torch import nn

from fedcad.shared.algorithms.interface import State
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.errors import CheckpointError
from fedcad.shared.layout import Layout, Role
from fedcad.shared.parameters import Networks, named_tensors

_PREFIX = "personal/"


def unexchanged(networks: Networks, layout: Layout) -> State:
    """Return copies of all entries that are not in the exchanged vector, by name."""
    kept = {entry.name for entry in layout.entries if not entry.is_exchanged}
    return {name: tensor.detach().clone() for name, tensor in named_tensors(networks) if name in kept}


def hash_of_unexchanged(networks: Networks, layout: Layout) -> str:
    """Return the hash of the bytes of all entries that are not in the exchanged vector."""
    # As bytes, since NumPy lacks some of torch's types; shapes and types are in the layout.
    bytes_of = {
        name: tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for name, tensor in unexchanged(networks, layout).items()
    }
    return hash_of_vectors(bytes_of)


def restore(networks: Networks, values: State) -> None:
    """Copy entries back into networks."""
    tensors = dict(named_tensors(networks))
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)


def personal_state(networks: Networks, layout: Layout) -> State:
    """Return the personal entries of networks as they are now, as a part of a site's state."""
    names = _personal_names(layout)
    return {
        f"{_PREFIX}{name}": tensor.detach().cpu().clone()
        for name, tensor in named_tensors(networks)
        if name in names
    }


def split_state(state: State, layout: Layout) -> tuple[State, State]:
    """Divide a site's state into the algorithm's and the personal entries by their own names.

    Raises:
        CheckpointError: A personal entry is missing or has another shape: the state is of another model.
    """
    personal = {
        name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)
    }
    shapes = {entry.name: entry.shape for entry in layout.entries if entry.role is Role.LOCAL}
    if {name: tuple(tensor.shape) for name, tensor in personal.items()} != shapes:
        raise CheckpointError(
            f"the site's state has personal entries {sorted(personal)}; the study's model has "
            f"{sorted(shapes)}. Restore the site's state folder or start the study anew"
        )
    return {name: tensor for name, tensor in state.items() if not name.startswith(_PREFIX)}, personal


def personal_parameters(networks: Networks, layout: Layout, network: str) -> list[nn.Parameter]:
    """Return the personal parameters of one network that training changes."""
    names = _personal_names(layout)
    return [
        tensor
        for name, tensor in named_tensors({network: networks[network]})
        if name in names and isinstance(tensor, nn.Parameter) and tensor.requires_grad
    ]


def _personal_names(layout: Layout) -> set[str]:
    return {entry.name for entry in layout.entries if entry.role is Role.LOCAL}
