"""A model of your own: ``build`` returns it. Copy this file, change it, name it in ``train.module.path``."""

import torch
from torch import nn


class MyModel(nn.Module):
    """Three convolutions, of which the last sees the whole image, and a linear layer."""

    def __init__(self, channels: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(2 * width, 4 * width, 4),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``, whose pixels are ``(value - 127.5) / 64``."""
        return self.head(self.dropout(self.features(x).flatten(1)))


def build(
    channels: int,  # 1 (grey) or 3
    classes: int,
    size: tuple[int, int],  # noqa: ARG001  # height and width in pixels
    width: int = 16,  # this and what follows are yours: train.module.options
    dropout: float = 0.0,
) -> nn.Module:
    """Return the model with random weights; the pipeline has set the seed."""
    return MyModel(channels, classes, width, dropout)
