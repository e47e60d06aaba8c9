"""The networks of one study in this process, ready to be loaded with parameters and trained.

Why one for all sites of a simulation: only one node answers at a time, and memory must not grow with sites.
"""

from itertools import zip_longest

import torch

from fedcad.client.device import CPU
from fedcad.client.personal import hash_of_unexchanged, personal_state, restore, unexchanged
from fedcad.shared.algorithms.interface import State
from fedcad.shared.algorithms.registry import algorithm_for
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract, Terms
from fedcad.shared.errors import CheckpointError
from fedcad.shared.layout import Entry, Role
from fedcad.shared.parameters import FlatParameters, Networks, flatten, layout_of, named_tensors
from fedcad.shared.seeds import derive_seed
from fedcad.shared.tasks.registry import task_for


class Workbench:
    """Task, algorithm and networks of a contract.

    Attributes:
        contract: The study.
        task: Its task.
        algorithm: Its algorithm.
        networks: Its networks; whoever uses them loads parameters first.
        flat: Their trained parameters as one flat tensor.
        device: Where the networks are; vectors and personal states are on the processor.
    """

    def __init__(self, contract: Contract | Terms, *, device: torch.device = CPU) -> None:
        """Build the networks as every party does, from the study's seed: frozen entries are not exchanged.

        They are built and checked on the processor, whose generator is every party's, and moved after that.

        Args:
            contract: The study.
            device: Where they train, from :func:`fedcad.client.device.open_device`.

        Raises:
            CheckpointError: What was built here is not what the contract was frozen with.
        """
        self.contract = contract
        self.task = task_for(contract.study)
        self.algorithm = algorithm_for(contract.study.algorithm)
        torch.manual_seed(initial_seed(contract.study))
        self.networks = self.task.networks()
        _check_built(self.networks, contract)
        self._built = unexchanged(self.networks, contract.layout)
        self.device = device
        for network in self.networks.values():
            network.to(device)
        self.flat = FlatParameters(self.networks, contract.layout)

    def first_personal(self) -> State:
        """Return the personal part of a site's state before any round."""
        restore(self.networks, self._built)
        return personal_state(self.networks, self.contract.layout)

    def become(self, personal: State) -> None:
        """Put in a site's personal entries; everything else that is not exchanged becomes as built.

        Args:
            personal: Entries by name, from :func:`fedcad.client.personal.split_state`.
        """
        restore(self.networks, self._built | personal)


def initial_seed(study: StudyConfig) -> int:
    """Return the seed of a study's initial parameters."""
    return derive_seed(study.seed, "initial parameters")


def _check_built(networks: Networks, contract: Contract | Terms) -> None:
    """Compare entries with the contract's layout, and what never travels with the contract's hash of it."""
    agreed = contract.layout
    local = frozenset(entry.name for entry in agreed.entries if entry.role is Role.LOCAL)
    names = {name for name, _ in named_tensors(networks)}
    built = layout_of(networks, personal=local & names)
    for here, there in zip_longest(built.entries, agreed.entries):
        if here != there:
            raise CheckpointError(
                f"the study's networks as built here differ from the contract's: here {_describe(here)}, in "
                f"the contract {_describe(there)}; use the FedCAD version with which the study was frozen"
            )
    if hash_of_unexchanged(networks, agreed) != contract.unexchanged_sha256:
        raise CheckpointError(
            "entries of the study's networks that are not exchanged (frozen, local, integer buffers) have "
            "other initial values here than in the contract; use the torch build and the seed with which the "
            "study was frozen, or freeze it anew"
        )


def _describe(entry: Entry | None) -> str:
    if entry is None:
        return "no further entry"
    return f"{entry.role} {entry.name} {entry.dtype} {entry.shape}, norm {entry.norm}"


def freeze(study: StudyConfig) -> Contract:
    """Build a study's networks and return the contract with their layout and initial parameters."""
    torch.manual_seed(initial_seed(study))
    networks = task_for(study).networks()
    layout = layout_of(networks)
    personal = algorithm_for(study.algorithm).personal(layout)
    layout = layout_of(networks, personal=personal)
    return Contract(study, layout, flatten(networks, layout), hash_of_unexchanged(networks, layout))
