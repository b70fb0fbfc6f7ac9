"""Training speed: our loop, a plain DataLoader loop, and the bare step that limits both.

The three alternate in one process on the same images, so that a machine whose speed drifts treats them
alike. A reader runs: ``python -m bench.training --model resnet18``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tasks.core.params import Augment, Forget, Recipe, Runtime, Split
from tasks.datasets import SOURCES
from tasks.engine import device as devices
from tasks.engine.batches import batches
from tasks.engine.data import Data
from tasks.engine.optimization import optimizer_of
from tasks.engine.predict import logits
from tasks.engine.training import fit
from tasks.models import CENTRE, MODELS, SCALE, build


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What a tutorial writes: one PIL image a sample, torchvision's transforms."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.images = images.transpose(0, 2, 3, 1)
        self.labels = labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(images.shape[2], padding=4, padding_mode="reflect"),
                transforms.ToTensor(),
                transforms.Normalize((CENTRE / 255,) * images.shape[1], (SCALE / 255,) * images.shape[1]),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        """One augmented image ``float [C, H, W]`` and its label."""
        image: torch.Tensor = self.transform(Image.fromarray(self.images[row].squeeze()))
        return image, int(self.labels[row])


def plain(
    model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64], recipe: Recipe
) -> Iterator[float]:
    """Train by a DataLoader with 2 workers; yield the loss of each epoch."""
    loader = DataLoader(
        Images(images, labels),
        recipe.batch_size,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        persistent_workers=True,
    )
    optimizer, scheduler = optimizer_of(model, recipe, recipe.epochs * len(loader))
    for group in optimizer.param_groups:
        group["fused"] = False
    criterion = nn.CrossEntropyLoss()
    model.train()
    for _ in range(recipe.epochs):
        total = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item()
        yield total / len(loader)


def bare(model: nn.Module, data: Data, recipe: Recipe) -> Callable[[], float]:
    """Return a function that takes an epoch's steps on one fixed batch and returns images a second."""
    inputs, targets = next(batches(data, recipe, seed=0, epoch=1))
    optimizer, _ = optimizer_of(model, recipe, 1)
    criterion = nn.CrossEntropyLoss()
    steps = len(data) // recipe.batch_size

    def epoch() -> float:
        model.train()
        start = time.perf_counter()
        for _ in range(steps):
            loss = criterion(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return steps * recipe.batch_size / (time.perf_counter() - start)

    return epoch


def main() -> None:
    """Print images a second of the three, their ratios round by round, and the loss curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small_cnn", choices=("small_cnn", "resnet18"))
    parser.add_argument("--source", default="parquet", help="a file of tasks/datasets")
    parser.add_argument("--path", type=Path, default=Path("data/fashion-mnist-10k"))
    parser.add_argument("--images", type=int, default=5120, help="training images to use")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    devices.choose(Runtime(device="cpu", threads=arguments.threads))
    split = Split(source=arguments.source, path=str(arguments.path), resize=32, forget=Forget())
    source = SOURCES.get(arguments.source)(arguments.path, split)
    rows = np.flatnonzero(~source.is_test)[: arguments.images]
    images, labels = source.images[rows], source.labels[rows]
    if images.shape[1] == 1:
        images = images.repeat(3, axis=1)  # both models at 3×32×32, whatever the source
    data = Data(torch.from_numpy(images), torch.from_numpy(labels))
    recipe = Recipe(
        epochs=arguments.rounds, batch_size=arguments.batch_size, lr=0.05, augment=Augment(flip=True, crop=4)
    )
    models = []
    for _ in range(3):
        torch.manual_seed(0)
        architecture = MODELS.get(arguments.model)
        models.append(
            build(
                arguments.model,
                architecture.Options(),
                channels=3,
                size=(32, 32),
                classes=len(source.classes),
            )
        )
    ours_model, plain_model, bare_model = models
    plain_model.to(memory_format=torch.contiguous_format)
    plain_epochs = plain(plain_model, images, labels, recipe)
    bare_epoch = bare(bare_model, data, recipe)
    bare_epoch()  # warm-up of the allocator and of oneDNN's kernels
    seen = len(data) // recipe.batch_size * recipe.batch_size
    rates: dict[str, list[float]] = {"ours": [], "plain": [], "bare": []}
    losses: list[tuple[float, float]] = []

    def one_round(_: int, metrics: dict[str, float]) -> None:
        rates["ours"].append(metrics["images_per_second"])
        start = time.perf_counter()
        loss = next(plain_epochs)
        rates["plain"].append(seen / (time.perf_counter() - start))
        rates["bare"].append(bare_epoch())
        losses.append((metrics["train/loss"], loss))

    fit(ours_model, data, recipe, seed=0, on_epoch=one_round)
    start = time.perf_counter()
    logits(ours_model, images)
    evaluation = len(images) / (time.perf_counter() - start)
    training = statistics.median(rates["ours"])
    print(f"{arguments.model}: {seen} images 3×32×32 an epoch, batch {recipe.batch_size}")
    print(
        f"{arguments.threads} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )
    for name, values in rates.items():
        rounds = " ".join(f"{value:.0f}" for value in values)
        print(f"  {name:6s} images/s: median {statistics.median(values):7.0f}  rounds {rounds}")
    for other in ("bare", "plain"):
        ratios = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
        median = statistics.median(ratios[1:])  # the plain loop's first epoch also starts its workers
        print(f"  ours / {other}: median {median:.2f}  rounds {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  evaluation {evaluation:.0f} images/s, {evaluation / training:.1f} times training")
    print("  train loss (ours, plain):", "  ".join(f"{a:.3f} {b:.3f}" for a, b in losses))


if __name__ == "__main__":
    main()
