"""Repair the unlearned model by training it on the retain set."""

from __future__ import annotations

from pathlib import Path

from tasks.core.params import Params
from tasks.engine import device as devices
from tasks.engine.data import Groups
from tasks.engine.distributed import launch
from tasks.engine.outputs import write
from tasks.engine.resumable import fit_and_write
from tasks.engine.training import OnEpoch, ignore
from tasks.engine.weights import load
from tasks.samples.manifest import load_roles
from tasks.stage import Stage

READS = (
    "data/split/images",
    "data/split/manifest.csv",
    "data/split/classes.json",
    "data/unlearn/weights.safetensors",
    "data/unlearn/weights.json",
)


def finetune(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train the unlearned weights by ``finetune.recipe``, or keep them as they are if that is null."""
    split = load_roles()
    groups = Groups(split.images, split.manifest.labels, split.manifest.roles)
    device = devices.choose(params.runtime)
    model, info = load(Path("data/unlearn"))
    model.to(device)
    recipe, seed = params.finetune.recipe, params.finetune.seed
    if recipe is None:
        return write(Path("data/finetune"), model, info, groups, history=[], seconds=0.0)
    return fit_and_write(
        "finetune", model, info, groups, recipe, on="retain", seed=seed, device=device, on_epoch=on_epoch
    )


if __name__ == "__main__":
    Stage("finetune", finetune, READS, ("finetune", "runtime"), launch=launch).main()
