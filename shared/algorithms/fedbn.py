"""FedBN: Li et al. (2021), "FedBN: Federated learning on non-IID features", arXiv:2102.07623.

Algorithm 1: FedAvg over all layers but the normalisation layers, which stay at the site.

Gains, offsets and running statistics follow the site's own images (scanner, population). The paper treats
batch normalisation; a group, instance or layer normalisation has a gain and an offset that stay in the same
way. A site that never trained has only the initial ones.
"""

from fedcad.shared.algorithms.fedavg import FedAvg
from fedcad.shared.layout import Layout, Norm


class FedBN(FedAvg):
    """FedAvg with personal normalisation layers."""

    def personal(self, layout: Layout) -> frozenset[str]:
        """Parameters and buffers of every normalisation layer are personal."""
        return frozenset(entry.name for entry in layout.entries if entry.norm is not Norm.NONE)
