from __future__ import annotations

import pytest
import torch

from tasks.core.params import Augment
from tasks.engine.batches import Plan, batches, plan
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
