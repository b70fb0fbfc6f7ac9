"""Architectures: one file each, an ``nn.Module`` built from channels, class count and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Section
from tasks.core.plugins import Registry

CENTRE, SCALE = 127.5, 64.0
"""Pixels reach a model as ``(value − 127.5) / 64``. Constants, not statistics of the data: a mean over the
training set would carry a trace of the forgotten samples into every later model."""


class Architecture(nn.Module):
    """Base of every architecture; maps ``float [B, C, H, W]`` to logits ``float [B, K]``."""

    class Options(Section):
        """Options in ``params.yaml`` under ``train.<file name>``; none by default."""

    smallest: int = 8
    """Least height and width in pixels."""

    remedy: str = "set split.resize"
    """What to do where the images have a size that the model does not take."""

    code: str | None = None
    """SHA-256 of code of the model that does not lie in ``tasks/models``."""

    @classmethod
    def sized(cls, channels: int, classes: int, size: tuple[int, int], options: Any) -> Self:  # noqa: ARG003
        """Build it for images of that height and width, for architectures that have to know."""
        return cls(channels, classes, options)

    def begin(self) -> Mapping[str, torch.Tensor]:
        """Take the weights that a training begins with, where the options name some, and return them.

        It is called once, for a new model, and never for weights that are loaded.
        """
        return {}


MODELS: Registry[type[Any]] = Registry("models")
register = MODELS.register


def build(name: str, options: Section, *, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """Build a model in channels-last layout, with freshly initialised weights.

    Parameters
    ----------
    name
        File of ``tasks/models``.
    options
        An instance of that file's ``Options``.
    channels, size, classes
        Shape of the images (1 or 3 channels; height and width in pixels) and number of classes.

    Raises
    ------
    ExpungeError
        If the name is unknown or the images are smaller than the model can take.
    """
    architecture = MODELS.get(name)
    if min(size) < architecture.smallest:
        raise ExpungeError(
            f"model {name} needs images of at least {architecture.smallest}×{architecture.smallest} pixels, "
            f"these are {size[0]}×{size[1]}; {architecture.remedy}"
        )
    module: nn.Module = architecture.sized(channels, classes, size, options)
    return module.to(memory_format=torch.channels_last)
