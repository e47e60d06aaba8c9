"""Two small algorithms with state at the site, for the node's tests."""

import torch
from torch import Tensor

from fedcad.client.node import Node
from fedcad.client.personal import hash_of_unexchanged
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.config.study import FedAvgConfig, StudyConfig
from fedcad.shared.contract import Contract
from fedcad.shared.messages import RoundPlan, Work
from fedcad.shared.parameters import flatten, layout_of


class Controlled(FedAvg):
    """As SCAFFOLD: a control vector at the site that moves with every round, and travels as a difference."""

    def init_site(self, layout):
        return {"control": torch.zeros(layout.trained_size), "rounds": torch.zeros(1)}

    def local(self, state, broadcast, trainer):
        start, control = broadcast["model"], state["control"]

        def correct(parameters: Tensor, gradients: Tensor) -> None:
            gradients.add_(control, alpha=0.1)

        update = trainer.train(start, correct) - start
        moved = update[: trainer.trained_size]
        return {"control": control + moved, "rounds": state["rounds"] + 1}, {"model": update}


class Greedy(FedAvg):
    """A badly written algorithm: changes the vectors that it was given."""

    def local(self, state, broadcast, trainer):
        broadcast["model"].add_(1.0)
        return state, {"model": torch.ones_like(broadcast["model"])}


class LocalNorms(FedAvg):
    """As FedBN: every normalisation entry stays at its site."""

    def personal(self, layout):
        return frozenset(
            entry.name for entry in layout.entries if len(entry.shape) == 1 and "norm" in entry.name
        )


def bench_with(study: StudyConfig, algorithm: FedAvg, personal: frozenset[str] = frozenset()) -> Workbench:
    """Return a workbench that runs an algorithm which no configuration names."""
    frozen = freeze(study)
    networks = Workbench(frozen).networks
    layout = layout_of(networks, personal=personal)
    others = hash_of_unexchanged(networks, layout)
    bench = Workbench(Contract(study, layout, flatten(networks, layout), others))
    bench.algorithm = algorithm
    return bench


def plan_for(
    node_or_bench, vectors, *, work: tuple[Work, ...] = ("train",), round_number=1, last=0, **changes
):
    """Return the plan, the broadcast and its hash, as they reach a node."""
    is_node = isinstance(node_or_bench, Node)
    bench = node_or_bench._bench if is_node else node_or_bench
    arrays = {name: vector.numpy() for name, vector in vectors.items()}
    for array in arrays.values():
        array.flags.writeable = False
    plain = {
        "study_hash": bench.contract.study_hash,
        "site": node_or_bench._name if is_node else "a",
        "round": round_number,
        "work": work,
        "broadcast_hash": hash_of_vectors(arrays),
        "last_counted_round": last,
    }
    return RoundPlan(**(plain | changes)), arrays, hash_of_vectors(arrays)


FEDAVG = FedAvgConfig(name="fedavg")
