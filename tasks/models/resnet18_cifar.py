"""ResNet-18 with the stem that is usual for 32×32 images."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

from tasks.core.params import Section
from tasks.models import Architecture, register


@register
class ResNet18Cifar(Architecture):
    """He et al. 2016 with a 3×3 stride-1 stem and no max-pooling; 15 times the arithmetic of ``resnet18``."""

    def __init__(self, channels: int, classes: int, options: Section) -> None:  # noqa: ARG002
        super().__init__()
        self.net = resnet18(num_classes=classes)
        self.net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits
