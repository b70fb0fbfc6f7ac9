"""A training that a stage can be killed in, and that goes on where it was when the stage runs again."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import nn

from tasks.core.files import content_digest
from tasks.core.params import Recipe
from tasks.engine import device as devices
from tasks.engine import distributed
from tasks.engine.augment import sides_at
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.data import Data, Groups
from tasks.engine.outputs import write
from tasks.engine.training import OnEpoch, fit
from tasks.engine.weights import Info, require_logits

DIGESTED = 2**24
"""Bytes of images that are digested at once."""


def fit_and_write(
    stage: str,
    model: nn.Module,
    info: Info,
    groups: Groups,
    recipe: Recipe,
    *,
    on: str,
    seed: int,
    device: torch.device,
    on_epoch: OnEpoch,
) -> dict[str, float]:
    """Train ``model`` on the images of one group and write the stage's outputs.

    Processes that ``torchrun`` started share the training; the main one writes.

    Parameters
    ----------
    stage
        Names the output folder and the checkpoint.
    model, info
        The model to start from, on the device, and its description.
    groups
        All images; those of group ``val`` are evaluated after each epoch.
    recipe, seed
        Of the training; the seed sets order and augmentation.
    on
        The group to train on.
    on_epoch
        Called after each epoch, see :func:`tasks.engine.training.fit`.

    Returns
    -------
    metrics
        Those of :func:`tasks.engine.outputs.write`.

    Raises
    ------
    ExpungeError
        If the model does not take images as small as ``recipe.start_scale`` makes the first ones, or the
        training fails.
    """
    size = sides_at(info.size, recipe.start_scale)
    if size != info.size:
        first = info.model_copy(update={"size": size})
        require_logits(model, first, f"raise the recipe's start_scale ({recipe.start_scale:g})")
    data, val = groups.on_device(on, device), groups.on_device("val", device)
    work = {
        "stage": stage,
        "code": [content_digest(Path(__file__).parents[1] / room) for room in ("engine", "models")],
        "torch": torch.__version__,
        "start": info.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "data": _digest(data, val),
    }
    checkpoint = Checkpoint(stage, work | {"machine": devices.describe(device)})
    with distributed.joined(device):
        distributed.require_same(Checkpoint(stage, work).identity, "recipe, code or data")
        done = fit(model, data, recipe, seed=seed, val=val, checkpoint=checkpoint, on_epoch=on_epoch)
        is_main = distributed.is_main()
    metrics = write(Path("data") / stage, model, info, groups, history=done.history, seconds=done.seconds)
    if is_main:
        checkpoint.discard()
    return metrics


def _digest(*sets: Data) -> str:
    """SHA-256 of the bytes of images and labels."""
    sha = hashlib.sha256()
    for data in sets:
        for images, _ in data.parts(max(1, DIGESTED // math.prod(data.images.shape[1:]))):
            sha.update(images.cpu().contiguous().numpy().data)
        sha.update(data.labels.cpu().contiguous().numpy().data)
    return sha.hexdigest()
