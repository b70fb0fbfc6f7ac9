"""Train the original model, on the retain and the forget set, or take one that is trained already."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.engine import device as devices
from tasks.engine.data import Groups
from tasks.engine.distributed import launch
from tasks.engine.outputs import write
from tasks.engine.resumable import fit_and_write
from tasks.engine.training import OnEpoch, ignore
from tasks.engine.weights import Info, begin, differing_option, load
from tasks.models import MODELS
from tasks.samples.manifest import load_samples
from tasks.stage import Stage

BASE = Path("data/base")
READS = (
    "data/split/images",
    "data/split/samples.csv",
    "data/split/classes.json",
    str(BASE),
    "data/pretrained",
)


def train(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train ``train.model`` by ``train.recipe``; write weights, logits, history and metrics.

    With ``train.start: base`` the weights in ``data/base`` are taken as they are. It reads
    ``samples.csv`` and not the manifest: a new forget set leaves the original model as it is.

    Raises
    ------
    ExpungeError
        If an input is missing or damaged, or the base does not fit the images and their classes.
    """
    split = load_samples()
    samples = split.samples
    # not "train": its metrics would share their names with the epochs' curves
    names = np.where(samples.parts == "train", "train_set", samples.parts)
    groups = Groups(split.images, samples.labels, names)
    if params.train.start == "base":
        return _take_base(params, groups, split.classes)
    return train_from_scratch(
        "train",
        params,
        groups,
        split.classes,
        on="train_set",
        seed=params.train.seed,
        on_epoch=on_epoch,
    )


def _take_base(params: Params, groups: Groups, classes: tuple[str, ...]) -> dict[str, float]:
    model, info = load(BASE)
    if info.model != params.train.model:
        raise ExpungeError(f"{BASE} holds a {info.model}, but train.model is {params.train.model}")
    options = params.train.options(MODELS.get(info.model).Options, where="params.yaml: train")
    if name := differing_option(info, options):
        key = f"train.{info.model}.{name}"
        held = info.options.get(name, "not recorded")
        raise ExpungeError(
            f"{BASE} holds a {info.model} whose {name} is {held}, but {key} is {getattr(options, name)}; "
            f"set {key} to what the weights in production have"
        )
    _, channels, *size = groups.images.shape
    if (info.channels, info.size, info.classes) != (channels, tuple(size), classes):
        raise ExpungeError(
            f"{BASE} holds a model for {info.channels}×{info.size[0]}×{info.size[1]} images of "
            f"{len(info.classes)} classes; the split has {channels}×{size[0]}×{size[1]} images of "
            f"{len(classes)}{', of other names' if len(classes) == len(info.classes) else ''}"
        )
    model.to(devices.choose(params.runtime))
    return write(Path("data/train"), model, info, groups, history=[], seconds=0.0)


def train_from_scratch(
    stage: str,
    params: Params,
    groups: Groups,
    classes: tuple[str, ...],
    *,
    on: str,
    seed: int,
    on_epoch: OnEpoch,
) -> dict[str, float]:
    """Train a new model by ``params.train`` on the images of group ``on``; write the stage's outputs.

    Parameters
    ----------
    stage
        Names the output folder and the checkpoint.
    groups
        All images; ``on`` and ``val`` are among the groups.
    classes
        Class names.
    seed
        Of the initial weights, the order and the augmentation.
    """
    device = devices.choose(params.runtime)
    options = params.train.options(MODELS.get(params.train.model).Options, where="params.yaml: train")
    info = Info(
        sha256="",
        model=params.train.model,
        options=options.model_dump(mode="json"),
        channels=groups.images.shape[1],
        size=(groups.images.shape[2], groups.images.shape[3]),
        classes=classes,
    )
    model, info = begin(info, seed)
    return fit_and_write(
        stage,
        model.to(device),
        info,
        groups,
        params.train.recipe,
        on=on,
        seed=seed,
        device=device,
        on_epoch=on_epoch,
    )


if __name__ == "__main__":
    Stage("train", train, READS, ("train", "runtime"), expensive=True, launch=launch).main()
