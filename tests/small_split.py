"""A small split on disk, and the parameters of stages that train on it in a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.params import Params, validate
from tasks.engine.training import Epoch, OnEpoch
from tasks.samples.manifest import LoadedSplit, Manifest, Samples, load_split

OUTPUTS = ["history.csv", "logits.npy", "metrics.json", "weights.json", "weights.safetensors"]
"""What a stage that makes a model writes."""

COUNTS = {"retain": 60, "forget": 24, "val": 20, "test": 30}
CLASSES = ("round", "square", "flat")


def parameters(**changes: Any) -> Params:
    """Parameters for :func:`write`; whole sections may be replaced."""
    recipe = {"epochs": 3, "batch_size": 16, "lr": 0.02}
    sections: dict[str, Any] = {
        "split": {"source": "digits", "path": "data", "forget": {"kind": "random", "fraction": 0.2}},
        "train": {"model": "small_cnn", "recipe": recipe, "small_cnn": {"widths": [4, 6, 8]}},
        "retrain": {},
        "unlearn": {"method": "none"},
        "finetune": {"recipe": recipe},
        "mia": {},
        "report": {},
        "runtime": {"device": "cpu", "threads": 1},
    }
    return validate(sections | changes)


def write() -> LoadedSplit:
    """Write ``data/split`` with random images and labels: nothing to learn, all to memorise."""
    random = np.random.default_rng(0)
    roles = random.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    ids = tuple(f"sample/{number:03d}" for number in range(len(roles)))
    labels = random.integers(len(CLASSES), size=len(roles))
    parts = np.where(np.isin(roles, ("retain", "forget")), "train", roles)
    images = random.integers(0, 256, (len(roles), 1, 8, 8), dtype=np.uint8)
    split = LoadedSplit(images, Samples(ids, ids, labels, parts), Manifest(ids, ids, labels, roles), CLASSES)
    split.write()
    return split


def replace(*roles: str) -> None:
    """Give the samples of these roles other images and other labels."""
    split = load_split()
    rows = np.flatnonzero(np.isin(split.manifest.roles, roles))
    images, labels = np.array(split.images), split.manifest.labels.copy()
    images[rows] = 255 - images[rows]
    labels[rows] = (labels[rows] + 1) % len(CLASSES)
    columns = (split.manifest.sample_ids, split.manifest.sources, labels)
    samples, manifest = Samples(*columns, split.samples.parts), Manifest(*columns, split.manifest.roles)
    LoadedSplit(images, samples, manifest, split.classes).write()


def digest(stage: str) -> str:
    """Recorded digest of a stage's weights."""
    sha256: str = json.loads(Path("data", stage, "weights.json").read_text())["sha256"]
    return sha256


def logits(stage: str) -> NDArray[np.float32]:
    """A stage's logits on all samples."""
    rows: NDArray[np.float32] = np.load(Path("data", stage, "logits.npy"))
    return rows


def files(stage: str) -> dict[str, bytes]:
    """Contents of a stage's folder."""
    return {path.name: path.read_bytes() for path in sorted(Path("data", stage).iterdir())}


class EndedError(Exception):
    """What ends a training between two epochs."""


def end_after(last: int) -> OnEpoch:
    """Let a training run until an epoch is done, then end it."""

    def on_epoch(epoch: int, metrics: Epoch) -> None:
        if epoch == last:
            raise EndedError

    return on_epoch
