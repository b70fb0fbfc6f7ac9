"""Train the original model, on the retain and the forget set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.datasets._manifest import load_samples
from tasks.engine import device as devices
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.data import to_device
from tasks.engine.outputs import write
from tasks.engine.training import OnEpoch, fit, ignore
from tasks.engine.weights import Info, create
from tasks.models import MODELS
from tasks.params import Params
from tasks.stage import Stage, content_digest

READS = ("data/split/images.npy", "data/split/samples.csv", "data/split/classes.json")


def train(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train ``train.model`` by ``train.recipe``; write weights, logits, history and metrics.

    It reads ``samples.csv`` and not the manifest: a new forget set leaves the original model as it is.
    """
    split = load_samples()
    return train_from_scratch(
        "train",
        params,
        split.images,
        split.samples.labels,
        np.where(split.samples.parts == "train", "train_set", split.samples.parts),
        split.classes,
        on="train_set",  # not "train": its metrics would share their names with the epochs' curves
        seed=params.train.seed,
        on_epoch=on_epoch,
    )


def train_from_scratch(
    stage: str,
    params: Params,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    classes: tuple[str, ...],
    *,
    on: str,
    seed: int,
    on_epoch: OnEpoch,
) -> dict[str, float]:
    """Train a new model by ``params.train`` on the samples of group ``on``; write the stage's outputs.

    Parameters
    ----------
    stage
        Names the output folder and the checkpoint.
    images, labels, groups
        ``uint8 [N, C, H, W]``, ``int64 [N]`` and N group names, among them ``on`` and ``val``.
    classes
        Class names.
    seed
        Of the initial weights, the order and the augmentation.
    """
    target = devices.choose(params.runtime)
    recipe = params.train.recipe
    options = params.train.options(MODELS.get(params.train.model).Options, where="params.yaml: train")
    info = Info(
        sha256="",
        model=params.train.model,
        options=options.model_dump(mode="json"),
        channels=images.shape[1],
        size=(images.shape[2], images.shape[3]),
        classes=classes,
    )
    model = create(info, seed).to(target)
    data = to_device(images, labels, np.flatnonzero(groups == on), target)
    val = to_device(images, labels, np.flatnonzero(groups == "val"), target)
    identity = {
        **code_and_machine(target),
        "recipe": recipe.model_dump(mode="json"),
        "model": info.model_dump(mode="json"),
        "seed": seed,
        "data": data_digest(data.images, data.labels, val.images, val.labels),
    }
    checkpoint = Checkpoint(stage, identity)
    done = fit(model, data, recipe, seed=seed, val=val, checkpoint=checkpoint, on_epoch=on_epoch)
    folder = Path("data") / stage
    metrics = write(folder, model, info, images, labels, groups, history=done.history, seconds=done.seconds)
    checkpoint.discard()
    return metrics


def code_and_machine(device: torch.device) -> dict[str, object]:
    """What else decides the bits of a training: a checkpoint of other code or another machine is not it."""
    tasks = Path(__file__).parent
    return {
        "code": [content_digest(tasks / room) for room in ("engine", "models")],
        "device": devices.describe(device),
        "torch": torch.__version__,
    }


def data_digest(*tensors: torch.Tensor) -> str:
    """SHA-256 of the bytes of tensors, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.cpu().contiguous().numpy().data)
    return sha.hexdigest()


if __name__ == "__main__":
    Stage("train", train, READS, ("train", "runtime"), expensive=True).main()
