"""A small convolutional net that trains well on CPU."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from tasks.models import Architecture, register
from tasks.models._blocks import ConvNet
from tasks.params import Section


@register
class SmallCnn(Architecture):
    """Three blocks of convolution, batch norm, ReLU and pooling; 114,000 weights for 3×32×32 and 10 classes."""

    class Options(Section):
        """``widths``: channels of the three blocks."""

        widths: Annotated[
            tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(strict=False, min_length=3, max_length=3)
        ] = (32, 64, 128)

    def __init__(self, channels: int, classes: int, options: SmallCnn.Options) -> None:
        super().__init__()
        self.net = ConvNet(channels, classes, options.widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits
