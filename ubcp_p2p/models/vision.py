"""A small convolutional classifier without batch norm: nothing is kept outside the parameters that peers average.

Shapes in names: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ubcp_p2p.models.initial import initialise
from ubcp_p2p.models.recipe import IMAGE_CLASSES, CNNConfig


class CNN(nn.Module):
    """Strided 3×3 convolutions, group norm (Wu & He 2018), GELU; a linear head. Initialised from `seed`."""

    def __init__(self, config: CNNConfig, side: int, seed: int) -> None:
        super().__init__()
        std: dict[str, float] = {}
        with torch.device("meta"):  # initialised below, equal on every machine
            self.convolutions = nn.ModuleList()
            self.norms = nn.ModuleList()
            before = 1
            for index, channels in enumerate(config.channels):
                self.convolutions.append(nn.Conv2d(before, channels, 3, stride=2, padding=1, bias=False))
                self.norms.append(nn.GroupNorm(config.groups, channels))
                std[f"convolutions.{index}.weight"] = (2.0 / (9 * before)) ** 0.5  # He 2015
                before, side = channels, (side + 1) // 2
            features = before * side * side
            self.head = nn.Linear(features, IMAGE_CLASSES)
            std["head.weight"] = (1.0 / features) ** 0.5
        initialise(self, seed, std)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Images (N, 1, side, side), float32 → logits (N, K)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_NCHW = F.gelu(norm(convolution(x_NCHW)))
        logits_NK: Tensor = self.head(x_NCHW.flatten(1))
        return logits_NK
