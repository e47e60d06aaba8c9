"""Seeds of everything that is random without protecting anybody.

Why: a plan carries no seeds. Order of cases, augmentation, dropout, partition and bootstrap weights derive
from the study's seed, the purpose and where they are used, so that a repeated simulation gives the same bits
in any engine. Privacy noise never comes from here.
"""

import hashlib

import numpy as np
import torch

from fedcad.shared.canonical import canonical_json


def derive_seed(seed: int, purpose: str, *where: str | int) -> int:
    """Return a 63-bit seed for one purpose at one place, for instance ``("batches", site, round)``."""
    digest = hashlib.sha256(canonical_json([seed, purpose, *where])).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(seed: int, purpose: str, *where: str | int) -> torch.Generator:
    """Return a CPU generator seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *where))


def numpy_generator(seed: int, purpose: str, *where: str | int) -> np.random.Generator:
    """Return a NumPy generator (PCG64) seeded by :func:`derive_seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, *where)))
