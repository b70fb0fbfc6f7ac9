from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.params import Augment
from tasks.engine.batches import batches, batches_per_epoch
from tasks.engine.data import Data, normalise
from tasks.engine.device import computes_bfloat16
from tasks.engine.training import Epoch, evaluate, fit
from tests import tiny


def test_two_trainings_with_one_seed_end_with_the_same_bits() -> None:
    data, val = tiny.noise(50), tiny.noise(20, seed=1)
    recipe = tiny.recipe(augment=Augment(flip=True, crop=2, cutout=2))
    ends = []
    for _ in range(2):
        model = tiny.model()
        done = fit(model, data, recipe, seed=5, val=val)
        ends.append((tiny.state(model), tiny.untimed(done.history)))
    assert tiny.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_another_seed_ends_elsewhere() -> None:
    models = [tiny.model(), tiny.model()]
    for seed, model in enumerate(models):
        fit(model, tiny.noise(50), tiny.recipe(), seed=seed)
    assert not tiny.equal(tiny.state(models[0]), tiny.state(models[1]))


def test_each_part_of_the_augmentation_is_used() -> None:
    ends = []
    for augment in (Augment(), Augment(flip=True), Augment(crop=1), Augment(cutout=2)):
        model = tiny.model()
        fit(model, tiny.noise(50), tiny.recipe(augment=augment), seed=0)
        ends.append(tiny.state(model))
    for number, end in enumerate(ends):
        assert not any(tiny.equal(end, other) for other in ends[number + 1 :])


def test_training_learns_the_digits() -> None:
    data = tiny.digits()
    train, val = data.subset(torch.arange(1200)), data.subset(torch.arange(1200, 1797))
    model = tiny.model(classes=10)
    done = fit(model, train, tiny.recipe(epochs=3, batch_size=64), seed=0, val=val)
    assert done.history[-1]["val/acc"] > 0.85  # chance is 0.1; seen: above 0.9
    assert done.history[-1]["train/loss"] < done.history[0]["train/loss"] / 2
    assert done.seconds > 0


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(50, 16, [16, 16, 16]), (48, 16, [16, 16, 16]), (15, 16, [15])]
)
def test_a_short_last_batch_is_left_out_unless_it_is_the_only_one(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    data, recipe = tiny.noise(count), tiny.recipe(batch_size=batch_size)
    assert [len(labels) for _, labels in batches(data, recipe, seed=0, epoch=1)] == sizes
    assert batches_per_epoch(data, recipe) == len(sizes)


def test_an_epoch_takes_each_image_once_with_its_own_label_in_an_order_of_its_own() -> None:
    pixels = torch.arange(48, dtype=torch.uint8).reshape(48, 1, 1, 1).expand(48, 1, 4, 4).contiguous()
    data = Data(pixels, torch.arange(48))
    orders = []
    for epoch in (1, 2):
        order: list[int] = []
        for images, labels in batches(data, tiny.recipe(), seed=0, epoch=epoch):
            assert torch.equal(images, normalise(data.images[labels]))
            order += labels.tolist()
        assert sorted(order) == list(range(48))
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(ExpungeError, match=f"^training needs at least 2 images, here are {count}$"):
        fit(tiny.model(), tiny.noise(count), tiny.recipe(), seed=0)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_epoch_and_the_remedy() -> None:
    with pytest.raises(ExpungeError) as caught:
        fit(tiny.model(), tiny.noise(64), tiny.recipe(lr=1e30, schedule="constant"), seed=0)
    assert str(caught.value) in {
        f"the training loss became {loss} in epoch 1; lower the recipe's lr (1e+30)"
        for loss in ("nan", "inf")
    }


def test_a_last_step_that_breaks_the_model_shows_in_the_validation_loss() -> None:
    data = tiny.noise(16)  # one step: the loss before it is finite
    with pytest.raises(ExpungeError, match="validation loss became nan in epoch 1; lower"):
        fit(tiny.model(), data, tiny.recipe(epochs=1, lr=1e30, schedule="constant"), seed=0, val=data)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.0, False, 0.0), (0.9, False, 0.0), (0.9, True, 0.0), (0.9, True, 0.1), (0.0, False, 0.1)],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_three_steps_equal_stochastic_gradient_descent_by_hand(
    momentum: float, nesterov: bool, weight_decay: float, smoothing: float
) -> None:
    data = tiny.noise(12, size=3)
    model = tiny.linear(9)
    parameters = tiny.logistic_parameters(model)
    recipe = tiny.recipe(
        epochs=3, batch_size=12, lr=0.3, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay,
        schedule="constant", label_smoothing=smoothing,
    )  # fmt: skip
    done = fit(model, data, recipe, seed=0)

    velocity, losses = np.zeros_like(parameters), []
    for _ in range(3):
        loss, gradient = tiny.logistic_loss(parameters, data, smoothing)
        losses.append(loss)
        gradient = gradient + weight_decay * parameters
        velocity = momentum * velocity + gradient
        parameters = parameters - 0.3 * (gradient + momentum * velocity if nesterov else velocity)
    np.testing.assert_allclose(tiny.logistic_parameters(model), parameters, rtol=1e-9)
    assert [row["train/loss"] for row in done.history] == pytest.approx(losses, rel=1e-6)


def test_training_accuracy_is_the_share_of_hits_before_each_step() -> None:
    data, model = tiny.noise(40, size=3), tiny.linear(9)
    before = evaluate(model, data)
    done = fit(model, data, tiny.recipe(epochs=1, batch_size=40), seed=0)
    assert done.history[0]["train/acc"] == pytest.approx(before["val/acc"])
    assert done.history[0]["train/loss"] == pytest.approx(before["val/loss"], rel=1e-5)


def test_the_model_is_evaluated_after_each_epoch_and_the_caller_told() -> None:
    model, val = tiny.model(), tiny.noise(20, seed=1)
    seen: list[tuple[int, Epoch, Epoch]] = []

    def on_epoch(epoch: int, row: Epoch) -> None:
        seen.append((epoch, row, evaluate(model, val)))

    done = fit(model, tiny.noise(50), tiny.recipe(), seed=0, val=val, on_epoch=on_epoch)
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3]
    assert [row for _, row, _ in seen] == done.history
    for _, row, now in seen:
        assert row | now == row


def test_an_epochs_metrics_have_the_names_and_the_order_of_the_history_file() -> None:
    done = fit(tiny.model(), tiny.noise(50), tiny.recipe(epochs=1), seed=0, val=tiny.noise(20))
    assert list(done.history[0]) == [
        "train/loss", "train/acc", "val/loss", "val/acc", "lr", "images_per_second",
    ]  # fmt: skip


def test_without_held_out_images_there_are_no_metrics_of_them() -> None:
    done = fit(tiny.model(), tiny.noise(50), tiny.recipe(epochs=1), seed=0)
    assert list(done.history[0]) == ["train/loss", "train/acc", "lr", "images_per_second"]


def test_the_images_on_the_device_stay_as_they_are() -> None:
    data = tiny.noise(50)
    before = data.images.clone()
    fit(tiny.model(), data, tiny.recipe(augment=Augment(flip=True, crop=2, cutout=2)), seed=0, val=data)
    assert torch.equal(data.images, before)


def test_batch_norm_learns_although_the_model_came_in_evaluation_mode() -> None:
    model = tiny.model().eval()
    before = tiny.state(model)
    fit(model, tiny.noise(50), tiny.recipe(epochs=1), seed=0)
    after = tiny.state(model)
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert not any(torch.equal(before[name], after[name]) for name in statistics)


def test_mixed_precision_trains_as_well_and_is_float32_where_it_is_not_native() -> None:
    losses: dict[str, list[float]] = {}
    for amp in ("off", "auto"):
        done = fit(tiny.model(), tiny.noise(64), tiny.recipe(amp=amp, epochs=4), seed=0)
        losses[amp] = [row["train/loss"] for row in done.history]
    if computes_bfloat16(torch.device("cpu")):
        assert losses["auto"] == pytest.approx(losses["off"], abs=0.05)  # bfloat16 has 8 bits
    else:
        assert losses["auto"] == losses["off"]


class Drops(nn.Module):
    """Two linear layers with dropout between them: a layer that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


def test_layers_that_draw_are_reproducible_too() -> None:
    ends = []
    for noise in (0, 99):  # whatever the global generator's state was
        torch.manual_seed(0)
        model = Drops()
        torch.manual_seed(noise)
        fit(model, tiny.noise(50), tiny.recipe(), seed=0)
        ends.append(tiny.state(model))
    assert tiny.equal(ends[0], ends[1])
