from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from tasks.core.params import Recipe
from tasks.engine.data import normalise
from tasks.engine.optimization import optimizer_of
from tasks.engine.training import fit
from tests import tiny


def by_hand(recipe: Recipe, count: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights after the loop that anyone would write for SGD: no options, one process."""
    model, data = tiny.model(), tiny.noise(count)
    steps = count // recipe.batch_size
    optimizer = SGD(model.parameters(), recipe.lr, 0.9, nesterov=True, weight_decay=5e-4, fused=True)
    total = steps * recipe.epochs
    schedules: dict[str, LRScheduler] = {
        "constant": ConstantLR(optimizer, factor=1.0),
        "cosine": CosineAnnealingLR(optimizer, total),
    }
    if recipe.schedule == "one_cycle":
        schedules["one_cycle"] = OneCycleLR(
            optimizer, recipe.lr, total + 1, pct_start=0.3, cycle_momentum=False
        )
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        for rows in torch.split(order, recipe.batch_size)[:steps]:
            loss = nn.functional.cross_entropy(model(normalise(data.images[rows])), data.labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedules[recipe.schedule].step()
    return tiny.state(model)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_a_plain_recipe_has_the_very_bits_of_a_plain_loop(schedule: str) -> None:
    recipe, model = tiny.recipe(schedule=schedule), tiny.model()
    fit(model, tiny.noise(50), recipe, seed=5)
    assert tiny.equal(tiny.state(model), by_hand(recipe, 50, seed=5))


def test_four_steps_equal_adamw_by_hand_whose_biases_do_not_decay() -> None:
    data, model = tiny.noise(12, size=3), tiny.linear(9)
    parameters = tiny.logistic_parameters(model)
    recipe = tiny.recipe(
        epochs=4, batch_size=12, lr=0.1, optimizer="adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2,
        schedule="constant",
    )  # fmt: skip
    fit(model, data, recipe, seed=0)

    decay = np.full_like(parameters, 0.2)
    decay[:, -1] = 0  # biases
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, 5):  # Loshchilov & Hutter 2019, algorithm 2
        _, gradient = tiny.logistic_loss(parameters, data)
        parameters = parameters - 0.1 * decay * parameters
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        at = (first / (1 - 0.8**step), second / (1 - 0.95**step))
        parameters = parameters - 0.1 * at[0] / (np.sqrt(at[1]) + 1e-6)
    np.testing.assert_allclose(tiny.logistic_parameters(model), parameters, rtol=1e-9)


def test_norms_and_biases_decay_with_sgd_and_not_with_adamw() -> None:
    model = tiny.model()
    sizes = {}
    for name in ("sgd", "adamw"):
        optimizer, _ = optimizer_of(model, tiny.recipe(optimizer=name), 10)
        groups = optimizer.param_groups
        sizes[name] = {group["weight_decay"]: {w.ndim > 1 for w in group["params"]} for group in groups}
    assert sizes == {"sgd": {5e-4: {True, False}}, "adamw": {5e-4: {True}, 0.0: {False}}}


def test_frozen_weights_are_no_business_of_any_optimizer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, bias=False))
    for weight in model[0].parameters():
        weight.requires_grad = False
    optimizer, _ = optimizer_of(model, tiny.recipe(optimizer="adamw"), 10)
    (group,) = optimizer.param_groups  # there is no bias, so no group of them
    assert [id(weight) for weight in group["params"]] == [id(model[1].weight)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("count", [50, 64, 7])  # a last step left out; none; one step that is not full
def test_accumulated_batches_make_the_steps_of_one_large_batch(optimizer: str, count: int) -> None:
    ends: list[tuple[Any, Any]] = []
    for batch_size, accumulate in ((16, 1), (4, 4), (8, 2)):
        model = tiny.linear(9)
        recipe = tiny.recipe(optimizer=optimizer, batch_size=batch_size, accumulate=accumulate, lr=0.1)
        done = fit(model, tiny.noise(count, size=3), recipe, seed=3)
        ends.append((tiny.logistic_parameters(model), [list(row.values())[:3] for row in done.history]))
    for parameters, history in ends[1:]:
        np.testing.assert_allclose(parameters, ends[0][0], rtol=1e-6)
        np.testing.assert_allclose(history, ends[0][1], rtol=1e-6)


def test_gradients_that_somebody_left_do_not_count() -> None:
    ends = []
    for left in (False, True):
        model = tiny.model()
        if left:
            for weight in model.parameters():
                weight.grad = torch.ones_like(weight)
        fit(model, tiny.noise(50), tiny.recipe(), seed=0)
        assert all(weight.grad is None for weight in model.parameters())
        ends.append(tiny.state(model))
    assert tiny.equal(*ends)
