"""The benchmarked networks in plain torch: the same layers in the same order as FedCAD's own.

Why copies: the plain and the Flower columns must not pay for importing FedCAD.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

CNN_FEATURES = (24, 48, 96)
CNN_HIDDEN = 64
CLASSES = 2
_WIDTHS = (64, 128, 256, 512)


def group_norm(channels: int) -> nn.GroupNorm:
    """Up to 32 groups of at least 4 channels."""
    groups = math.gcd(32, channels)
    while channels // groups < 4:
        groups //= 2
    return nn.GroupNorm(groups, channels)


class ChannelsInnermost(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class GlobalAverage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = group_norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, group_norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        residual = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(residual)) + self.shortcut(x))


def build_cnn() -> nn.Module:
    """Three convolutions and one hidden layer: about 58 thousand parameters."""
    layers: list[nn.Module] = []
    inputs = 1
    for number, outputs in enumerate(CNN_FEATURES):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        if number == 0:
            layers.append(ChannelsInnermost())
        layers += [group_norm(outputs), nn.ReLU(), nn.MaxPool2d(2, stride=2)]
        inputs = outputs
    return nn.Sequential(
        *layers, GlobalAverage(), nn.Linear(inputs, CNN_HIDDEN), nn.ReLU(), nn.Linear(CNN_HIDDEN, CLASSES)
    )


def build_resnet18() -> nn.Module:
    """ResNet18 with group normalisation: about 11 million parameters."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, _WIDTHS[0], 7, stride=2, padding=3, bias=False),
        group_norm(_WIDTHS[0]),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    inputs = _WIDTHS[0]
    for outputs in _WIDTHS:
        layers += [Block(inputs, outputs), Block(outputs, outputs)]
        inputs = outputs
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(inputs, CLASSES))


BUILDERS = {"cnn": build_cnn, "resnet18": build_resnet18}


def load_flat(network: nn.Module, flat: Tensor) -> None:
    """Copy a flat vector into the parameters, in their order of definition."""
    start = 0
    with torch.no_grad():
        for parameter in network.parameters():
            end = start + parameter.numel()
            parameter.copy_(flat[start:end].view_as(parameter))
            start = end
