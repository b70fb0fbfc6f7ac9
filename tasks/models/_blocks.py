"""Building blocks that several architectures share."""

from __future__ import annotations

import torch
from torch import nn


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ConvNet(nn.Module):
    """``depth`` :func:`conv_block` and a 2×2 max-pooling a width, then a head on a 4×4 grid.

    The head sees where features are, not just their mean: on 32×32 images the grid is what three
    poolings leave, other sizes are averaged to it. Such a net memorises within a few epochs.

    Parameters
    ----------
    channels, classes
        Of the images and of the labels.
    widths
        Output channels of the blocks, first to last.
    depth
        Convolutions a block.
    hidden
        Units of a hidden layer in the head; 0 for none.
    """

    def __init__(
        self, channels: int, classes: int, widths: tuple[int, ...], depth: int = 1, hidden: int = 0
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for width in widths:
            for _ in range(depth):
                blocks.append(conv_block(channels, width))
                channels = width
            blocks.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*blocks)
        features = 16 * widths[-1]
        if hidden:
            layers: tuple[nn.Module, ...] = (
                nn.Linear(features, hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, classes),
            )
        else:
            layers = (nn.Linear(features, classes),)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.head(self.blocks(x))
        return logits
