"""Batches of an epoch: who gets which images, and how many make a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tasks.core.params import Recipe
from tasks.engine.augment import augment, scaled, sides
from tasks.engine.data import Data, normalise


@dataclass(frozen=True, slots=True)
class Plan:
    """How an epoch is divided.

    Attributes
    ----------
    steps
        Steps of the optimizer.
    images
        Images a step, of all processes together.
    own
        Batches a step of one process; their gradients add up.
    """

    steps: int
    images: int
    own: int


def plan(count: int, recipe: Recipe, world: int = 1) -> Plan:
    """Divide ``count`` images among the steps of an epoch and the batches of ``world`` processes.

    A step takes ``batch_size · accumulate · world`` images. A last step that would have fewer is left out,
    unless it is the only one; its images are then spread evenly.
    """
    images = recipe.batch_size * recipe.accumulate * world
    if count >= images:
        return Plan(count // images, images, recipe.accumulate)
    return Plan(1, count, math.ceil(count / (recipe.batch_size * world)))


def batches_per_epoch(data: Data, recipe: Recipe) -> int:
    """Number of batches in an epoch of a single process."""
    whole = plan(len(data), recipe)
    return whole.steps * whole.own


def batches(
    data: Data, recipe: Recipe, *, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one epoch: ``float [B, C, H, W]`` in channels-last layout and labels ``[B]``.

    All processes draw one order, and take turns: ``world`` of them see in a step the very batches that
    one would see that accumulates ``world`` times as many, augmented alike.
    """
    alternates = recipe.augment.flip == "alternating"
    side = sides(len(data), seed=mixed(seed, 0), epoch=epoch, device=data.device) if alternates else None
    generator = torch.Generator(data.device).manual_seed(mixed(seed, epoch))
    order = torch.randperm(len(data), generator=generator, device=data.device)
    whole = plan(len(data), recipe, world)
    steps = torch.split(order, whole.images)[: whole.steps]
    turns = [rows for step in steps for rows in torch.tensor_split(step, whole.own * world)]
    for turn, (rows, following) in enumerate(zip(turns, [*turns[1:], order[:0]], strict=True)):
        # others' batches are augmented, too: that is cheap, and draws the numbers that are theirs
        images = data.pixels(rows)
        data.expect(following)
        images = augment(images, recipe.augment, generator, None if side is None else side[rows])
        if turn % world == rank:
            at = scale_at(recipe, (epoch - 1) * whole.steps + turn // (whole.own * world), whole.steps)
            yield scaled(normalise(images), at), data.labels.index_select(0, rows)


def scale_at(recipe: Recipe, step: int, steps: int) -> float:
    """Share of their height and width that images have at a step, counted from 0 over all epochs.

    It grows linearly from ``start_scale`` to 1, which it is from the share ``full_scale`` of all steps on.

    Parameters
    ----------
    recipe
        Of the training.
    step
        Of the optimizer.
    steps
        An epoch.
    """
    done = step / (recipe.epochs * steps * recipe.full_scale)
    return recipe.start_scale + (1 - recipe.start_scale) * min(1.0, done)


def mixed(seed: int, epoch: int) -> int:
    """Seed of one epoch's random numbers, so that a training may resume after any."""
    return seed * 1_000_003 + epoch
