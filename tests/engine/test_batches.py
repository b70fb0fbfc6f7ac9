from __future__ import annotations

import pytest
import torch

from tasks.core.params import Augment
from tasks.engine.batches import Plan, batches, plan
from tasks.engine.data import normalise
from tests import tiny


@pytest.mark.parametrize(
    ("count", "accumulate", "world", "expected"),
    [
        (50, 1, 1, Plan(3, 16, 1)),
        (200, 3, 2, Plan(2, 96, 3)),  # 8 images are left out
        (96, 3, 2, Plan(1, 96, 3)),
        (95, 3, 2, Plan(1, 95, 3)),  # the only step is taken whatever it has
        (40, 3, 2, Plan(1, 40, 2)),
        (5, 8, 1, Plan(1, 5, 1)),
    ],
)
def test_a_step_takes_the_batches_of_all_processes(
    count: int, accumulate: int, world: int, expected: Plan
) -> None:
    assert plan(count, tiny.recipe(accumulate=accumulate), world) == expected


@pytest.mark.parametrize("count", [200, 90])
def test_processes_take_turns_in_the_batches_that_one_would_accumulate(count: int) -> None:
    data = tiny.noise(count)
    augment = Augment(flip=True, crop=2, cutout=3)
    alone = list(batches(data, tiny.recipe(augment=augment, accumulate=6), seed=1, epoch=2))
    recipe = tiny.recipe(augment=augment, accumulate=2)
    shares = [list(batches(data, recipe, seed=1, epoch=2, rank=rank, world=3)) for rank in range(3)]
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert len(together) == len(alone)
    for (images, labels), (expected, theirs) in zip(together, alone, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, theirs)


def test_the_images_of_a_short_only_step_are_spread_evenly() -> None:
    sizes = [len(labels) for _, labels in batches(tiny.noise(50), tiny.recipe(accumulate=8), seed=0, epoch=1)]
    assert sizes == [13, 13, 12, 12]


def test_alternating_images_are_mirrored_in_every_other_epoch() -> None:
    data = tiny.noise(48)
    recipe = tiny.recipe(augment=Augment(flip="alternating"))

    def seen(epoch: int) -> set[bytes]:
        return {
            image.numpy().tobytes()
            for images, _ in batches(data, recipe, seed=3, epoch=epoch)
            for image in images.contiguous()
        }

    plain = {image.numpy().tobytes() for image in normalise(data.images).contiguous()}
    mirrored = {image.numpy().tobytes() for image in normalise(data.images.flip(3)).contiguous()}
    for epoch in (1, 2):
        assert seen(epoch) <= plain | mirrored
    assert len(seen(1) & plain) + len(seen(2) & plain) == 48
    assert not seen(1) & seen(2)
    assert seen(1) == seen(3)


def test_images_grow_until_they_are_whole() -> None:
    recipe = tiny.recipe(epochs=4, start_scale=0.5, full_scale=0.5)
    sizes = [
        [tuple(images.shape[2:]) for images, _ in batches(tiny.noise(48), recipe, seed=0, epoch=epoch)]
        for epoch in (1, 2, 3, 4)
    ]
    assert sizes[0][0] == (4, 4)
    assert sizes[:2] == [[(4, 4), (5, 5), (5, 5)], [(6, 6), (7, 7), (7, 7)]]  # 4 + 4 · step / 6, rounded
    assert sizes[2:] == [[(8, 8)] * 3] * 2
