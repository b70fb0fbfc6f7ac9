"""A small convolutional net that trains well on CPU."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from tasks.core.params import Section
from tasks.models import Architecture, register
from tasks.models._blocks import ConvNet


@register
class SmallCnn(Architecture):
    """Three blocks of convolutions, batch norm, ReLU and pooling; 621,000 weights for 10 classes."""

    class Options(Section):
        """Sizes of the net.

        ``widths``: channels of the three blocks. ``depth``: convolutions a block. ``hidden``: units of
        the head's hidden layer, which costs little time and memorises much; 0 for none.
        """

        widths: Annotated[
            tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(strict=False, min_length=3, max_length=3)
        ] = (32, 64, 128)
        depth: Annotated[int, Field(ge=1, le=8)] = 1
        hidden: Annotated[int, Field(ge=0, le=8192)] = 256

    def __init__(self, channels: int, classes: int, options: SmallCnn.Options) -> None:
        super().__init__()
        self.net = ConvNet(channels, classes, options.widths, options.depth, options.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        logits: torch.Tensor = self.net(x)
        return logits
