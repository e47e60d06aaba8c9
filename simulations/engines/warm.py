"""What the fork server imports before any worker is forked, so that workers start in milliseconds.

Only the fork server imports this module: the process of the coordinator needs none of it.
"""

import torch

import fedcad.simulations.engines.simulated_client
import fedcad.simulations.engines.worker  # noqa: F401


def _use_optimizer() -> None:
    """Use an optimizer once: its first use imports a second's worth of modules."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.SGD([parameter], lr=0.1).step()


_use_optimizer()
