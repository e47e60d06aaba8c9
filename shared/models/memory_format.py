"""The order in memory in which convolutions on a processor are fastest."""

from torch import Tensor


def channels_innermost(feature_map: Tensor) -> Tensor:
    """Lay out a feature map with the channels innermost in memory; shape and values stay.

    Later convolutions, norms and poolings keep this order. Measured on one core, COVID-Net takes about a
    fifth less time for a training step. Written with ``permute`` because ``contiguous(memory_format=…)`` is
    not available below ``torch.func.vmap``.

    Args:
        feature_map: (B, C, H, W), any order in memory.

    Returns:
        The same (B, C, H, W).
    """
    return feature_map.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
