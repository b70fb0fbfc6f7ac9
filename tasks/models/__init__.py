"""Architectures: one file each, an ``nn.Module`` built from channels, class count and its options."""

from __future__ import annotations

from typing import Any

from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Section
from tasks.core.plugins import Registry


class Architecture(nn.Module):
    """Base of every architecture; maps ``float [B, C, H, W]`` to logits ``float [B, K]``."""

    class Options(Section):
        """Options in ``params.yaml`` under ``train.<file name>``; none by default."""

    smallest: int = 8
    """Least height and width in pixels."""


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
    import torch

    architecture = MODELS.get(name)
    if min(size) < architecture.smallest:
        raise ExpungeError(
            f"model {name} needs images of at least {architecture.smallest}×{architecture.smallest} pixels, "
            f"these are {size[0]}×{size[1]}; set split.resize"
        )
    module: nn.Module = architecture(channels, classes, options)
    return module.to(memory_format=torch.channels_last)
