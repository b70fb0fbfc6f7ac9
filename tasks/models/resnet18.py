"""torchvision's ResNet-18, with the stem that it has for large images."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

from tasks.core.params import Section
from tasks.models import Architecture, register


@register
class ResNet18(Architecture):
    """He et al. 2016 as torchvision builds it (7×7 stride-2 stem, max-pooling); 11.2 million weights."""

    def __init__(self, channels: int, classes: int, options: Section) -> None:  # noqa: ARG002
        super().__init__()
        self.net = resnet18(num_classes=classes)
        if channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits
