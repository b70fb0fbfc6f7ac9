"""A convolutional net for small grey images such as 28×28 Fashion-MNIST."""

from __future__ import annotations

import torch

from tasks.core.params import Section
from tasks.models import Architecture, register
from tasks.models._blocks import ConvNet


@register
class GreyCnn(Architecture):
    """Blocks of 16, 32 and 64 channels; 34,000 weights for 10 classes."""

    def __init__(self, channels: int, classes: int, options: Section) -> None:  # noqa: ARG002
        super().__init__()
        self.net = ConvNet(channels, classes, (16, 32, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits
