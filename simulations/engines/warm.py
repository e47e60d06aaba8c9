"""What the fork server imports before any worker is forked, so that workers start in milliseconds.

Only the fork server imports this module: the process of the coordinator needs none of it.
"""

import gc
from importlib import import_module

from fedcad.simulations.engines.early import collector_off

_MODULES = (
    "torch",
    "fedcad.simulations.engines.simulated_client",
    "fedcad.simulations.engines.worker",
)


def _import_all() -> None:
    """Import, and take what is there out of the sight of the workers' collectors: it stays for ever.

    Their memory stays shared then; a collector writes to every object that it looks at.
    """
    with collector_off():
        for name in _MODULES:
            import_module(name)
        _use_optimizer()
        gc.freeze()


def _use_optimizer() -> None:
    """Use an optimizer once: its first use imports a second's worth of modules."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.SGD([parameter], lr=0.1).step()


_import_all()
