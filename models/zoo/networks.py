"""The five networks. Each takes one normalised tensor and returns three logits; the export adds the softmax."""

from __future__ import annotations

import torch
from torch import nn


def toy_cnn() -> nn.Module:
    """[1, 8, 32]: two strided convolutions over the days, two dense layers."""
    return nn.Sequential(
        nn.Conv1d(8, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 8, 64), nn.ReLU(), nn.Linear(64, 3),
    )


def mlp() -> nn.Module:
    """[1, 256]: 256-512-512-256-3."""
    return nn.Sequential(
        nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 3),
    )


def cnn_small() -> nn.Module:
    """[1, 1, 32, 32]: two convolutions with pooling, two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, 3),
    )


def cnn_large() -> nn.Module:
    """[1, 3, 128, 128]: eight 3x3 convolutions in five pooled stages, two dense layers, 21.0 M parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 4 * 4, 1440), nn.ReLU(), nn.Linear(1440, 3))


def lstm() -> nn.Module:
    """[1, 32, 8]: one layer of 64 units, the last step into a dense layer."""
    return _Lstm()


def folded(network: nn.Module) -> nn.Module:
    """The same function in evaluation mode with every batch normalisation folded into its convolution."""
    network.eval()
    if not isinstance(network, nn.Sequential):
        return network
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = nn.utils.fusion.fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """Logits of windows [N, 32, 8]."""
        _, (last, _) = self.recurrent(window.transpose(0, 1))
        return self.head(last.reshape(-1, 64))
