"""Repair the unlearned model by training it on the retain set."""

from __future__ import annotations

from pathlib import Path

from tasks.datasets._manifest import load_roles
from tasks.engine import device as devices
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.data import to_device
from tasks.engine.outputs import write
from tasks.engine.training import Fit, OnEpoch, fit, ignore
from tasks.engine.weights import load
from tasks.params import Params
from tasks.stage import Stage
from tasks.train import code_and_machine, data_digest

READS = (
    "data/split/images.npy",
    "data/split/manifest.csv",
    "data/split/classes.json",
    "data/unlearn/weights.safetensors",
    "data/unlearn/weights.json",
)


def finetune(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train the unlearned weights by ``finetune.recipe``, or keep them as they are if that is null."""
    split = load_roles()
    manifest = split.manifest
    target = devices.choose(params.runtime)
    model, info = load(Path("data/unlearn"))
    model.to(target)
    data = to_device(split.images, manifest.labels, manifest.indices("retain"), target)
    val = to_device(split.images, manifest.labels, manifest.indices("val"), target)
    recipe, seed = params.finetune.recipe, params.finetune.seed
    done = Fit()
    checkpoint = None
    if recipe is not None:
        identity = {
            **code_and_machine(target),
            "recipe": recipe.model_dump(mode="json"),
            "start": info.sha256,
            "seed": seed,
            "data": data_digest(data.images, data.labels, val.images, val.labels),
        }
        checkpoint = Checkpoint("finetune", identity)
        done = fit(model, data, recipe, seed=seed, val=val, checkpoint=checkpoint, on_epoch=on_epoch)
    metrics = write(
        Path("data/finetune"), model, info, split.images, manifest.labels, manifest.roles,
        history=done.history, seconds=done.seconds,
    )  # fmt: skip
    if checkpoint:
        checkpoint.discard()
    return metrics


if __name__ == "__main__":
    Stage("finetune", finetune, READS, ("finetune", "runtime")).main()
