"""Train the original model, on the retain and the forget set."""

from __future__ import annotations

import numpy as np

from tasks.datasets._manifest import load_samples
from tasks.engine import device as devices
from tasks.engine.data import Groups
from tasks.engine.resumable import fit_and_write
from tasks.engine.training import OnEpoch, ignore
from tasks.engine.weights import Info, create
from tasks.models import MODELS
from tasks.params import Params
from tasks.stage import Stage

READS = ("data/split/images.npy", "data/split/samples.csv", "data/split/classes.json")


def train(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train ``train.model`` by ``train.recipe``; write weights, logits, history and metrics.

    It reads ``samples.csv`` and not the manifest: a new forget set leaves the original model as it is.
    """
    split = load_samples()
    samples = split.samples
    # not "train": its metrics would share their names with the epochs' curves
    names = np.where(samples.parts == "train", "train_set", samples.parts)
    return train_from_scratch(
        "train",
        params,
        Groups(split.images, samples.labels, names),
        split.classes,
        on="train_set",
        seed=params.train.seed,
        on_epoch=on_epoch,
    )


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
    return fit_and_write(
        stage,
        create(info, seed).to(device),
        info,
        groups,
        params.train.recipe,
        on=on,
        seed=seed,
        device=device,
        on_epoch=on_epoch,
    )


if __name__ == "__main__":
    Stage("train", train, READS, ("train", "runtime"), expensive=True).main()
