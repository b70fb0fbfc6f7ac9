"""The only training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from tasks.core.errors import ExpungeError
from tasks.core.params import Recipe
from tasks.engine.augment import augment
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.data import Data, normalise
from tasks.engine.device import autocast
from tasks.engine.predict import accuracy, cross_entropy, logits
from tasks.engine.progress import bar

log = logging.getLogger(__name__)

Epoch = dict[str, float]
"""Metrics of one epoch, with the names that DVC and MLflow show."""

COLUMNS = ("train/loss", "train/acc", "val/loss", "val/acc", "lr", "images_per_second")
"""The metrics of an epoch of :func:`fit`, in order; those of ``val`` only if there is one."""

OnEpoch = Callable[[int, Epoch], None]
"""Called after each epoch with its number, from 1, and its metrics."""


def ignore(epoch: int, metrics: Epoch) -> None:
    """Do nothing with an epoch's metrics."""


@dataclass
class Fit:
    """What a training did: metrics an epoch, and seconds spent on steps (validation not counted)."""

    history: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    val: Data | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch = ignore,
) -> Fit:
    """Train ``model`` in place by SGD.

    Each epoch draws its own random numbers from ``seed`` and its number, so a training that resumes
    from a checkpoint takes the very steps that an uninterrupted one takes.

    Parameters
    ----------
    model
        On the data's device.
    data
        Training images; a last batch that is not full is left out, unless it is the only one.
    recipe
        Epochs, batch size, optimizer, schedule, augmentation, precision.
    seed
        Of the order and the augmentation.
    val
        Held-out images, evaluated after each epoch.
    checkpoint
        Where to save after each epoch and to resume from.
    on_epoch
        Called after each epoch; when resuming, first with the epochs restored, so that a record is whole.

    Raises
    ------
    ExpungeError
        If there are fewer than two images, or a loss becomes NaN or infinite.
    """
    if len(data) < 2:
        raise ExpungeError(f"training needs at least 2 images, here are {len(data)}")
    optimizer, scheduler = optimizer_of(model, recipe, recipe.epochs * batches_per_epoch(data, recipe))
    done = Fit()
    first = _resume(checkpoint, model, optimizer, scheduler, done)
    for epoch, row in enumerate(done.history, start=1):
        on_epoch(epoch, row)
    forward = torch.compile(model) if recipe.compile else model
    for epoch in range(first, recipe.epochs + 1):
        row = _run_epoch(forward, data, recipe, optimizer, scheduler, seed=seed, epoch=epoch)
        done.seconds += row.pop("seconds")
        if val is not None:
            row |= evaluate(model, val)
        row = {name: row[name] for name in COLUMNS if name in row}
        _require_finite(row, epoch, recipe)
        done.history.append(row)
        _save(checkpoint, model, optimizer, scheduler, done)
        log.info("epoch %d/%d  %s", epoch, recipe.epochs, _line(row))
        on_epoch(epoch, row)
    return done


def batches_per_epoch(data: Data, recipe: Recipe) -> int:
    """Number of steps in an epoch."""
    return max(1, len(data) // recipe.batch_size)


def batches(
    data: Data, recipe: Recipe, *, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one epoch: ``float [B, C, H, W]`` in channels-last layout and labels ``[B]``."""
    generator = torch.Generator(data.device).manual_seed(_mixed(seed, epoch))
    order = torch.randperm(len(data), generator=generator, device=data.device)
    chosen = torch.split(order, recipe.batch_size)[: batches_per_epoch(data, recipe)]
    for rows, following in zip(chosen, [*chosen[1:], order[:0]], strict=True):
        images = data.pixels(rows)
        data.expect(following)
        yield normalise(augment(images, recipe.augment, generator)), data.labels.index_select(0, rows)


def optimizer_of(model: nn.Module, recipe: Recipe, steps: int) -> tuple[SGD, LRScheduler]:
    """Optimizer, and the schedule of its learning rate over ``steps`` steps."""
    optimizer = SGD(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    if recipe.schedule == "one_cycle":
        rise = recipe.warmup
        if rise * (steps + 1) == 1:  # it would end at the very first step: OneCycleLR divides by its length
            rise -= 1e-9
        scheduler: LRScheduler = OneCycleLR(
            optimizer, recipe.lr, total_steps=steps + 1, pct_start=rise, cycle_momentum=False
        )
    elif recipe.schedule == "cosine":
        scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    else:
        scheduler = ConstantLR(optimizer, factor=1.0)
    return optimizer, scheduler


def evaluate(model: nn.Module, val: Data) -> Epoch:
    """Accuracy and mean cross-entropy on held-out images."""
    rows, labels = logits(model, val.images), val.labels.cpu().numpy()
    return {"val/loss": cross_entropy(rows, labels), "val/acc": accuracy(rows, labels)}


def _run_epoch(
    model: Any, data: Data, recipe: Recipe, optimizer: SGD, scheduler: LRScheduler, *, seed: int, epoch: int
) -> Epoch:
    model.train()
    torch.manual_seed(_mixed(seed, epoch))  # for layers that draw, such as dropout
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    loss_sum = torch.zeros((), device=data.device)
    hits = torch.zeros((), dtype=torch.int64, device=data.device)
    seen: int = 0
    lr = float(scheduler.get_last_lr()[0])
    start = time.perf_counter()
    steps = batches(data, recipe, seed=seed, epoch=epoch)
    for images, labels in bar(
        steps, total=batches_per_epoch(data, recipe), title=f"epoch {epoch}/{recipe.epochs}"
    ):
        with autocast(recipe, data.device):
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        loss_sum += loss.detach() * len(labels)
        hits += (output.detach().argmax(dim=1) == labels).sum()
        seen += len(labels)
    mean_loss = float(loss_sum.item()) / seen  # waits for the device
    seconds = time.perf_counter() - start
    return {
        "train/loss": mean_loss,
        "train/acc": int(hits.item()) / seen,
        "lr": lr,
        "images_per_second": seen / seconds,
        "seconds": seconds,
    }


def _require_finite(row: Epoch, epoch: int, recipe: Recipe) -> None:
    for name, key in (("training", "train/loss"), ("validation", "val/loss")):
        if key in row and not math.isfinite(row[key]):
            raise ExpungeError(
                f"the {name} loss became {row[key]} in epoch {epoch}; lower the recipe's lr ({recipe.lr:g})"
            )


def _mixed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch


def _resume(
    checkpoint: Checkpoint | None, model: nn.Module, optimizer: SGD, scheduler: LRScheduler, done: Fit
) -> int:
    state = checkpoint.load() if checkpoint else None
    if state is None:
        return 1
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    done.history, done.seconds = state["history"], state["seconds"]
    log.info("resuming after epoch %d", len(done.history))
    return len(done.history) + 1


def _save(
    checkpoint: Checkpoint | None, model: nn.Module, optimizer: SGD, scheduler: LRScheduler, done: Fit
) -> None:
    if checkpoint:
        checkpoint.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "history": done.history,
                "seconds": done.seconds,
            }
        )


def _line(row: Epoch) -> str:
    parts = [f"train loss {row['train/loss']:.3f} acc {row['train/acc']:.3f}"]
    if "val/loss" in row:
        parts.append(f"val loss {row['val/loss']:.3f} acc {row['val/acc']:.3f}")
    return "  ".join([*parts, f"lr {row['lr']:.4g}", f"{row['images_per_second']:,.0f} images/s"])
