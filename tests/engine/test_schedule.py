from __future__ import annotations

import math
from itertools import pairwise

import pytest
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from tasks.core.params import Recipe
from tasks.engine.optimization import optimizer_of
from tests import tiny

STEPS = 40


def rates(recipe: Recipe, steps: int = STEPS) -> list[float]:
    """Learning rate of each step, and the one that would come after the last."""
    optimizer, scheduler = optimizer_of(nn.Linear(2, 2), recipe, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_constant_stays() -> None:
    assert rates(tiny.recipe(schedule="constant", lr=0.3)) == [0.3] * (STEPS + 1)


def test_cosine_falls_from_lr_to_zero() -> None:
    expected = [0.3 / 2 * (1 + math.cos(math.pi * step / STEPS)) for step in range(STEPS + 1)]
    assert rates(tiny.recipe(schedule="cosine", lr=0.3)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_one_cycle_rises_for_the_share_warmup_and_falls_to_zero(warmup: float) -> None:
    seen = rates(tiny.recipe(schedule="one_cycle", lr=0.3, warmup=warmup))
    peak = warmup * (STEPS + 1) - 1  # between two steps, as a rule
    start, end = 0.3 / 25, 0.3 / 25 / 1e4

    def between(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    expected = [
        between(start, 0.3, step / peak)
        if step <= peak
        else between(0.3, end, (step - peak) / (STEPS - peak))
        for step in range(STEPS + 1)
    ]
    assert seen == pytest.approx(expected, abs=1e-9)
    assert abs(seen.index(max(seen)) - warmup * STEPS) <= 1
    assert max(seen) <= 0.3
    assert seen[-1] < 1e-5 * 0.3


@pytest.mark.parametrize(
    ("steps", "warmup"), [(1, 0.5), (2, 1 / 3), (3, 0.25), (4, 0.2), (9, 0.1), (99, 0.01)]
)
def test_a_rise_that_ends_at_the_first_step_starts_at_the_peak(steps: int, warmup: float) -> None:
    seen = rates(tiny.recipe(schedule="one_cycle", lr=0.3, warmup=warmup), steps)
    assert seen[0] == pytest.approx(0.3, rel=1e-3)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup", [1e-6, 0.3, 0.999999])
def test_a_training_of_few_steps_has_a_rate_for_each(steps: int, warmup: float) -> None:
    seen = rates(tiny.recipe(schedule="one_cycle", lr=0.3, warmup=warmup), steps)
    assert all(0 < rate <= 0.3 for rate in seen)


@pytest.mark.parametrize(("mult", "starts"), [(1, [10, 14, 18]), (2, [10, 18, 34]), (3, [10, 22])])
def test_cosine_restarts_falls_to_zero_again_and_again_after_a_linear_rise(
    mult: int, starts: list[int]
) -> None:
    recipe = tiny.recipe(
        epochs=20, schedule="cosine_restarts", lr=0.3, warmup_epochs=3, restart_epochs=2, restart_mult=mult
    )  # 2 steps an epoch: the first cycle is that of steps 6 to 9
    seen = rates(recipe)
    assert seen[:6] == pytest.approx([0.3 * step / 7 for step in range(1, 7)])
    starts = [6, *starts]
    for start, end in pairwise(starts):
        assert seen[start] == pytest.approx(0.3)
        falls = [0.15 * (1 + math.cos(math.pi * at / (end - start))) for at in range(end - start)]
        assert seen[start:end] == pytest.approx(falls, abs=1e-12)


def test_cosine_restarts_without_a_rise_is_pytorchs() -> None:
    recipe = tiny.recipe(epochs=20, schedule="cosine_restarts", lr=0.3, restart_epochs=3, restart_mult=2)
    optimizer = SGD(nn.Linear(2, 2).parameters(), lr=0.3)
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=6, T_mult=2)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(recipe)[:STEPS] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_linear_rise_goes_before_the_other_schedules(schedule: str) -> None:
    seen = rates(tiny.recipe(epochs=4, schedule=schedule, lr=0.3, warmup_epochs=0.5))
    assert seen[:5] == pytest.approx([0.3 * step / 6 for step in range(1, 6)])
    after = [0.15 * (1 + math.cos(math.pi * at / 35)) if schedule == "cosine" else 0.3 for at in range(36)]
    assert seen[5:] == pytest.approx(after, abs=1e-12)


def test_the_optimizer_has_the_recipes_settings() -> None:
    optimizer, _ = optimizer_of(
        nn.Linear(2, 2), tiny.recipe(momentum=0.7, nesterov=False, weight_decay=0.01), STEPS
    )
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.7, False, 0.01)
