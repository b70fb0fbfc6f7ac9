"""The only training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Recipe
from tasks.engine import distributed
from tasks.engine.batches import Plan, batches, mixed, plan
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.data import Data
from tasks.engine.device import autocast
from tasks.engine.optimization import Optimization
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
    """Train ``model`` in place by a recipe.

    Each epoch draws its own random numbers from ``seed`` and its number, so a training that resumes
    from a checkpoint takes the very steps that an uninterrupted one takes. Several processes
    share the steps, see :func:`tasks.engine.distributed.joined`; the main one evaluates and saves.

    Parameters
    ----------
    model
        On the data's device.
    data
        Training images; those of a last step that is not full are left out, unless it is the only one.
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
        If there are fewer than two images a process, or a loss becomes NaN or infinite.
    """
    world, is_main = distributed.world(), distributed.is_main()
    if len(data) < 2 * world:
        each = f" for each of {world} processes" if world > 1 else ""
        raise ExpungeError(f"training needs at least 2 images{each}, here are {len(data)}")
    autocast(recipe, data.device)  # refuses a precision that the device does not have
    whole = plan(len(data), recipe, world)
    optimization = Optimization(model, recipe, recipe.epochs * whole.steps)
    done = Fit()
    first = _resume(checkpoint, model, optimization, done)
    for epoch, row in enumerate(done.history, start=1):
        on_epoch(epoch, row)
    replica = distributed.replica(model, data.device)
    forward = torch.compile(replica) if recipe.compile else replica
    for epoch in range(first, recipe.epochs + 1):
        row = _run_epoch(replica, forward, data, recipe, optimization, whole, seed=seed, epoch=epoch)
        done.seconds += row.pop("seconds")
        if val is not None and is_main:
            row |= evaluate(model, val)
        row = {name: row[name] for name in COLUMNS if name in row}
        _require_finite(row, epoch, recipe)
        done.history.append(row)
        if is_main:
            _save(checkpoint, model, optimization, done)
        log.info("epoch %d/%d  %s", epoch, recipe.epochs, _line(row))
        on_epoch(epoch, row)
    return done


def evaluate(model: nn.Module, val: Data) -> Epoch:
    """Accuracy and mean cross-entropy on held-out images."""
    rows, labels = logits(model, val.images), val.labels.cpu().numpy()
    return {"val/loss": cross_entropy(rows, labels), "val/acc": accuracy(rows, labels)}


def _run_epoch(
    replica: nn.Module,
    forward: Any,
    data: Data,
    recipe: Recipe,
    optimization: Optimization,
    whole: Plan,
    *,
    seed: int,
    epoch: int,
) -> Epoch:
    rank, world = distributed.rank(), distributed.world()
    replica.train()
    torch.manual_seed(mixed(seed, epoch) + (rank << 54))  # for layers that draw, such as dropout
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    loss_sum = torch.zeros((), device=data.device)
    hits = torch.zeros((), dtype=torch.int64, device=data.device)
    lr = optimization.lr
    start = time.perf_counter()
    own = batches(data, recipe, seed=seed, epoch=epoch, rank=rank, world=world)
    title = f"epoch {epoch}/{recipe.epochs}"
    for number, (images, labels) in enumerate(bar(own, total=whole.steps * whole.own, title=title), start=1):
        is_last = number % whole.own == 0  # of its step
        with distributed.averaged(replica, now=is_last):
            with autocast(recipe, data.device):
                output = forward(images)
                loss = criterion(output, labels)
            optimization.backward(loss * (len(labels) * world / whole.images))
        if is_last:
            optimization.step()
        loss_sum += loss.detach() * len(labels)
        hits += (output.detach().argmax(dim=1) == labels).sum()
    distributed.add_up(loss_sum, hits)
    seen = whole.steps * whole.images
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


def _resume(checkpoint: Checkpoint | None, model: nn.Module, optimization: Optimization, done: Fit) -> int:
    state = checkpoint.load() if checkpoint and distributed.is_main() else None
    state = distributed.from_main(state)
    if state is None:
        return 1
    model.load_state_dict(state["model"])
    optimization.load_state_dict(state["optimization"])
    done.history, done.seconds = state["history"], state["seconds"]
    log.info("resuming after epoch %d", len(done.history))
    return len(done.history) + 1


def _save(checkpoint: Checkpoint | None, model: nn.Module, optimization: Optimization, done: Fit) -> None:
    if checkpoint:
        state = {"model": model.state_dict(), "optimization": optimization.state_dict()}
        checkpoint.save({**state, "history": done.history, "seconds": done.seconds})


def _line(row: Epoch) -> str:
    parts = [f"train loss {row['train/loss']:.3f} acc {row['train/acc']:.3f}"]
    if "val/loss" in row:
        parts.append(f"val loss {row['val/loss']:.3f} acc {row['val/acc']:.3f}")
    return "  ".join([*parts, f"lr {row['lr']:.4g}", f"{row['images_per_second']:,.0f} images/s"])
