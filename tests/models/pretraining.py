"""Weights files as others publish them, made small and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torchvision import models

from tasks.engine.weights import Info, begin
from tasks.models._pretrained import FOLDER, Pretrained

Tensors = dict[str, torch.Tensor]


def published(name: str = "squeezenet1_1", classes: int = 1000, seed: int = 9, **settings: Any) -> Tensors:
    """State dict of torchvision's network with random weights that no other test has."""
    torch.manual_seed(seed)
    state: Tensors = models.get_model(name, weights=None, num_classes=classes, **settings).state_dict()
    return state


def put(tensors: Tensors, name: str = "weights.safetensors") -> str:
    """Write a file of weights where DVC looks for it, and return what names it."""
    path = Path(FOLDER, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def info(
    model: str = "torchvision", *, classes: int = 3, channels: int = 1, size: int = 32, **options: Any
) -> Info:
    """Describe a model; ``options`` are its own."""
    return Info(
        sha256="",
        model=model,
        options=options,
        channels=channels,
        size=(size, size),
        classes=tuple(f"class {number}" for number in range(classes)),
    )


def begun(described: Info, seed: int = 0) -> Pretrained:
    """Build the model as a training does."""
    model, _ = begin(described, seed)
    assert isinstance(model, Pretrained)
    return model
