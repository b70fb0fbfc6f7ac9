"""Time to a test accuracy on CIFAR-10: a recipe chosen for speed, and the plain one it is compared with.

``fast`` is our engine with a wide small net, flip, crop and label smoothing. ``original`` is torchvision's
ResNet-18 with SGD and without augmentation, in the same engine. The test set only reports: the stop is at
the recipe's end, and the time is that of the first epoch at or above the target. A reader runs::

    python -m bench.time_to_accuracy fast --source parquet --path FOLDER
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from tasks.core.params import Augment, Forget, Recipe, Runtime, Split
from tasks.datasets import SOURCES
from tasks.engine import device as devices
from tasks.engine.data import to_device
from tasks.engine.training import Epoch, fit
from tasks.models import MODELS, build

RECIPES: dict[str, tuple[str, dict[str, object], Recipe]] = {
    "fast": (
        "small_cnn",
        {"widths": (48, 96, 192), "depth": 2},
        Recipe(
            epochs=20,
            batch_size=128,
            lr=0.1,
            label_smoothing=0.1,
            augment=Augment(flip=True, crop=4),
            amp="auto",
        ),
    ),
    "original": (
        "resnet18",
        {},
        Recipe(epochs=10, batch_size=128, lr=0.1, momentum=0.9, nesterov=False, schedule="cosine"),
    ),
}


def main() -> None:
    """Train by one recipe for each seed; print accuracy and seconds of training after each epoch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--source", choices=("parquet", "cifar10"), default="cifar10")
    parser.add_argument("--path", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--target", type=float, default=0.88)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    target = devices.choose(Runtime(threads=arguments.threads))
    name, options, recipe = RECIPES[arguments.recipe]
    if arguments.epochs:
        recipe = recipe.model_copy(update={"epochs": arguments.epochs})
    split = Split(source=arguments.source, path=str(arguments.path), resize=None, forget=Forget())
    source = SOURCES.get(arguments.source)(arguments.path, split)
    train = to_device(source.images, source.labels, np.flatnonzero(~source.is_test), target)
    test = to_device(source.images, source.labels, np.flatnonzero(source.is_test), target)
    print(name, options, recipe.model_dump(), devices.describe(target))
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        architecture = MODELS.get(name)
        model = build(name, architecture.Options(**options), channels=3, size=(32, 32), classes=10).to(target)
        spent = 0.0
        reached: float | None = None

        def on_epoch(epoch: int, row: Epoch) -> None:
            nonlocal spent, reached
            spent += len(train) // recipe.batch_size * recipe.batch_size / row["images_per_second"]
            if reached is None and row["val/acc"] >= arguments.target:
                reached = spent
            print(f"  epoch {epoch:2d}  test accuracy {row['val/acc']:.4f}  {spent:6.0f} s", flush=True)

        fit(model, train, recipe, seed=seed, val=test, on_epoch=on_epoch)
        outcome = "not reached" if reached is None else f"reached after {reached:.0f} s"
        print(f"seed {seed}: {arguments.target:.0%} {outcome}")


if __name__ == "__main__":
    main()
