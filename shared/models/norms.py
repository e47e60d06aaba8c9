"""Normalisation layers, chosen by name.

Shapes: B cases, C channels, H rows, W columns; every layer takes and gives (B, C, H, W).

Batch normalisation couples the cases of a batch and carries running statistics of patients in its buffers:
neither patient-level privacy nor batches of one allow it. It is here to compare with publications.
"""

import math

from torch import nn

from fedcad.shared.config.models import Norm
from fedcad.shared.errors import ConfigError

_MAX_GROUPS = 32
_MIN_CHANNELS_IN_GROUP = 4
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def group_count(channels: int) -> int:
    """Return the number of groups for group normalisation.

    The greatest common divisor of 32 and the channels, halved until a group holds 4 channels: a group of
    one channel is instance normalisation and turns a map of 1 × 1 pixel into a constant.

    Args:
        channels: Number of channels C, at least 1.

    Returns:
        A power of two up to 32 that divides ``channels``.

    References:
        Wu and He (2018), arXiv:1803.08494: 32 groups, or 16 channels in a group, do best.
    """
    groups = math.gcd(_MAX_GROUPS, channels)
    while groups > 1 and channels // groups < _MIN_CHANNELS_IN_GROUP:
        groups //= 2
    return groups


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """Build one normalisation layer with a learned gain and offset for each channel.

    Args:
        kind: ``group``, ``instance``, ``batch``, or ``none`` for the identity.
        channels: Number of channels C.

    Returns:
        A layer from (B, C, H, W) to (B, C, H, W). Instance normalisation is group normalisation with C
        groups: the same numbers as ``InstanceNorm2d``, without its refusal of 1 × 1 pixel.
    """
    match kind:
        case "group":
            return nn.GroupNorm(group_count(channels), channels)
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "none":
            return nn.Identity()


def replace_norms(module: nn.Module, kind: Norm) -> int:
    """Replace every batch, instance and group normalisation below a module, in place.

    For networks of other libraries, whose own norm parameter may reach some layers only. Gains, offsets and
    running statistics start anew. A layer that is shared by two parents stays shared.

    Args:
        module: A network over images; not itself a normalisation layer.
        kind: What to put in their place; with ``batch``, existing batch normalisations stay.

    Returns:
        The number of layers replaced.

    Raises:
        ValueError: The module is itself a normalisation layer, which cannot be replaced in place.
    """
    if _channels_of_norm(module) is not None:
        raise ValueError("replace_norms got a normalisation layer; give the network that holds it")
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            channels = _channels_of_norm(child)
            if channels is None or (kind == "batch" and isinstance(child, _BATCH_NORMS)):
                continue
            setattr(parent, name, replaced.setdefault(child, make_norm(kind, channels)))
    return len(replaced)


def require_pixels(kind: Norm, pixels: int, *, network: str) -> None:
    """Refuse instance normalisation of maps of one pixel, whose output is a constant.

    Args:
        kind: Normalisation.
        pixels: Height (and width) of the smallest map that is normalised.
        network: Name of the network, for the message.

    Raises:
        ConfigError: ``instance`` on maps of 1 × 1 pixel: no gradient would pass.
    """
    if kind == "instance" and pixels <= 1:
        raise ConfigError(
            f"model.norm of {network} is instance, but its smallest feature map is 1 × 1 pixel, whose "
            "normalised value is always 0; at least 2 × 2 pixels are needed. "
            "Raise preprocessing.size, reduce strides, or set model.norm: group"
        )


def _channels_of_norm(module: nn.Module) -> int | None:
    """Return the channels that a normalisation layer works on, or None for another layer."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, _BATCH_NORMS + _INSTANCE_NORMS):
        return int(module.num_features)
    return None
