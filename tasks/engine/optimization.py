"""Optimizer, the schedule of its learning rate, and the scale of losses in float16."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from tasks.core.params import Recipe


class Optimization:
    """What turns gradients into steps, and its state as one mapping."""

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        self.optimizer, self.scheduler = optimizer_of(model, recipe, steps)
        self.scaler = GradScaler("cuda", enabled=recipe.amp == "float16")
        self.optimizer.zero_grad(set_to_none=True)  # whoever had the model before may have left some

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self.scheduler.get_last_lr()[0])

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradients to those that are there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Take a step, and the learning rate to the next; in float16 a step that overflows is left out."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}

    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to go on, beside the weights."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` gave."""
        for name, part in self._parts().items():
            if state[name]:  # a scaler that is off has none
                part.load_state_dict(state[name])


def optimizer_of(model: nn.Module, recipe: Recipe, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Optimizer, and the schedule of its learning rate over ``steps`` steps."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer: Optimizer
    if recipe.optimizer == "adamw":
        optimizer = AdamW(
            _decayed(weights, recipe.weight_decay),
            lr=recipe.lr,
            betas=recipe.betas,
            eps=recipe.eps,
            fused=True,
        )
    else:
        optimizer = SGD(
            weights,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    return optimizer, _schedule(optimizer, recipe, steps)


def _decayed(weights: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Put what is to decay and what is not into two groups, as AdamW is commonly used.

    Biases and the scales of norms, all of one dimension, do not: decay would pull a norm's scale from one to
    zero (Goyal et al. 2017, section 5.3; the default of timm).
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for weight in weights:
        groups[weight.ndim <= 1].append(weight)
    return [
        {"params": group, "weight_decay": amount}
        for group, amount in zip(groups, (decay, 0.0), strict=True)
        if group
    ]


def _schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    if recipe.schedule == "one_cycle":
        rise = recipe.warmup
        if rise * (steps + 1) == 1:  # it would end at the very first step: OneCycleLR divides by its length
            rise -= 1e-9
        return OneCycleLR(optimizer, recipe.lr, total_steps=steps + 1, pct_start=rise, cycle_momentum=False)
    if recipe.schedule == "cosine" and not recipe.warmup_epochs:
        return CosineAnnealingLR(optimizer, T_max=steps)
    if recipe.schedule == "constant" and not recipe.warmup_epochs:
        return ConstantLR(optimizer, factor=1.0)
    return LambdaLR(optimizer, lambda step: share_of_lr(recipe, step, steps))


def share_of_lr(recipe: Recipe, step: int, steps: int) -> float:
    """Which share of ``lr`` a step has, counted from 0, by all schedules but ``one_cycle``.

    While warming up, ``w`` steps in all, it is ``(step + 1) / (w + 1)`` (Goyal et al. 2017, section 2.2);
    then ``(1 + cos(π t / T)) / 2``, where ``t`` counts the steps of a cycle of ``T`` (Loshchilov & Hutter
    2017, equation 5): all that are left for ``cosine``.
    """
    warm = round(steps * recipe.warmup_epochs / recipe.epochs)
    if step < warm:
        return (step + 1) / (warm + 1)
    if recipe.schedule == "constant":
        return 1.0
    at, cycle = float(step - warm), float(steps - warm)
    if recipe.schedule == "cosine_restarts":
        cycle = steps * recipe.restart_epochs / recipe.epochs
        while at >= cycle:
            at -= cycle
            cycle *= recipe.restart_mult
    return (1 + math.cos(math.pi * min(1.0, at / cycle))) / 2
