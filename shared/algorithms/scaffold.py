"""SCAFFOLD: Karimireddy et al. (2020), "Stochastic controlled averaging", arXiv:1910.06378, Algorithm 1.

Site i corrects each local step by the difference of two control variates, ``c − c_i``: by how much the sites'
mean gradient differs from its own. The new c_i is option II of equation 4. Symbols: x global and y_i local
parameters, η_l and η_g the learning rates of site and coordinator, K local steps, S the sites that took part,
N all enrolled sites.

The control variates cover the trained parameters; floating buffers (running statistics) are averaged as in
FedAvg. Their mean is uniform, as in the paper, whatever the model's weights are: c is the mean of all c_i,
since sites that did not take part keep theirs and the first ones are zero. Where all sites take part, rounds
lead to the minimum of the unweighted mean of the sites' losses; ``weighting: cases`` weighs how far each site
moves the model on the way there.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcad.shared.algorithms.interface import State, Sums, Trainer, Vectors
from fedcad.shared.config.study import ScaffoldConfig
from fedcad.shared.layout import Layout


class Scaffold:
    """FedAvg whose local steps are corrected by control variates."""

    needs_individual_updates = False

    def __init__(self, config: ScaffoldConfig) -> None:
        """Keep η_g and the model's weighting."""
        self._eta_g = config.server_learning_rate
        self._weighting = config.weighting

    def personal(self, layout: Layout) -> frozenset[str]:
        """Nothing is personal: a control variate is the algorithm's, not the model's."""
        del layout
        return frozenset()

    def weights(self, cases: int) -> Mapping[str, int]:
        """Weigh the model by cases or uniformly, the control variates always uniformly."""
        return {"model": cases if self._weighting == "cases" else 1, "control": 1}

    def sizes(self, layout: Layout) -> Mapping[str, int]:
        """The model and a control variate for its trained part travel, in both directions."""
        return {"model": layout.size, "control": layout.trained_size}

    def init_server(self, initial: Tensor, layout: Layout) -> State:
        """Start from the initial parameters and c = 0."""
        return {"model": initial.clone(), "control": torch.zeros(layout.trained_size)}

    def init_site(self, layout: Layout) -> State:
        """Start from c_i = 0."""
        return {"control": torch.zeros(layout.trained_size)}

    def broadcast(self, state: State) -> Vectors:
        """Send x and c (line 4)."""
        return {"model": state["model"], "control": state["control"]}

    def local(self, state: State, broadcast: Vectors, trainer: Trainer) -> tuple[State, Vectors]:
        """Take K steps ``y_i ← y_i − η_l (g_i(y_i) − c_i + c)`` (line 10) and renew c_i (line 12)."""
        x, c, c_i = broadcast["model"], broadcast["control"], state["control"]
        correction = (c - c_i).to(trainer.device)

        def correct(_: Tensor, gradients: Tensor) -> None:
            gradients.add_(correction)

        delta_y = trainer.train(x, correct) - x
        if not trainer.steps:
            return state, {"model": delta_y, "control": torch.zeros_like(c_i)}
        path = trainer.steps * trainer.learning_rate
        new = c_i - c - delta_y[: trainer.trained_size] / path
        return {"control": new}, {"model": delta_y, "control": new - c_i}

    def apply(self, state: State, sums: Sums) -> State:
        """``x ← x + η_g mean Δy_i`` and ``c ← c + |S|/N mean Δc_i`` (lines 16 and 17)."""
        delta_x, trained = sums.means["model"].clone(), len(state["control"])
        delta_x[:trained] *= self._eta_g
        share = sums.count / sums.enrolled
        return {
            "model": state["model"] + delta_x,
            "control": state["control"] + share * sums.means["control"],
        }
