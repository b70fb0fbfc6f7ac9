"""Train the reference model: the original's recipe, on the retain set alone."""

from __future__ import annotations

from tasks.core.params import Params
from tasks.engine.data import Groups
from tasks.engine.distributed import launch
from tasks.engine.training import OnEpoch, ignore
from tasks.samples.manifest import load_roles
from tasks.stage import Stage
from tasks.train import train_from_scratch

READS = ("data/split/images", "data/split/manifest.csv", "data/split/classes.json", "data/pretrained")


def retrain(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Train ``train.model`` by ``train.recipe`` on samples that are to be retained.

    The model never saw the forget set: exact unlearning, and the reference that reports compare with.
    """
    split = load_roles()
    return train_from_scratch(
        "retrain",
        params,
        Groups(split.images, split.manifest.labels, split.manifest.roles),
        split.classes,
        on="retain",
        seed=params.retrain.seed,
        on_epoch=on_epoch,
    )


if __name__ == "__main__":
    Stage("retrain", retrain, READS, ("train", "retrain", "runtime"), expensive=True, launch=launch).main()
