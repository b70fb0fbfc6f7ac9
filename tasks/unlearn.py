"""Make the original model forget the forget set."""

from __future__ import annotations

import time
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.engine import device as devices
from tasks.engine.data import Groups
from tasks.engine.outputs import is_small, write
from tasks.engine.training import Epoch, OnEpoch, ignore
from tasks.engine.weights import load
from tasks.methods import METHODS, Sets
from tasks.samples.manifest import load_roles
from tasks.stage import Stage

READS = (
    "data/split/images",
    "data/split/manifest.csv",
    "data/split/classes.json",
    "data/train/weights.safetensors",
    "data/train/weights.json",
)


def unlearn(params: Params, on_epoch: OnEpoch = ignore) -> dict[str, float]:
    """Apply ``unlearn.method`` to the original weights; write weights, logits, history and metrics.

    What the method says of its epochs are figures of the forget set: of a small one they are left out.

    Raises
    ------
    ExpungeError
        If there is nothing to forget, or an input is missing or damaged. Nothing is written then.
    """
    split = load_roles()
    if not split.manifest.indices("forget").size:
        raise ExpungeError(
            "data/split/manifest.csv has no sample with role forget; there is nothing to unlearn: "
            "change split.forget in params.yaml, then dvc repro"
        )
    groups = Groups(split.images, split.manifest.labels, split.manifest.roles)
    device = devices.choose(params.runtime)
    model, info = load(Path("data/train"))
    model.to(device)
    sets = Sets(retain=groups.on_device("retain", device), forget=groups.on_device("forget", device))
    history: list[Epoch] = []

    def keep(epoch: int, metrics: Epoch) -> None:
        history.append(metrics)
        on_epoch(epoch, metrics)

    method = METHODS.get(params.unlearn.method)
    options = params.unlearn.options(method.Options, where="params.yaml: unlearn")
    start = time.perf_counter()
    method(options, params.unlearn.seed, ignore if is_small(groups) else keep).unlearn(model, sets)
    seconds = time.perf_counter() - start
    return write(Path("data/unlearn"), model, info, groups, history=history, seconds=seconds)


if __name__ == "__main__":
    Stage("unlearn", unlearn, READS, ("unlearn", "runtime")).main()
