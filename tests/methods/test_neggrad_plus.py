from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.engine.data import Data
from tasks.engine.training import Epoch, evaluate, fit
from tasks.methods import Sets
from tasks.methods.neggrad_plus import NegGradPlus
from tests import tiny


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_two_steps_equal_the_difference_of_gradients_by_hand(momentum: float) -> None:
    retain, forget = tiny.noise(12, size=3), tiny.noise(5, size=3, seed=1)
    model, seen = tiny.linear(9), list[Epoch]()
    parameters = tiny.logistic_parameters(model)
    options = NegGradPlus.Options(alpha=0.8, lr=0.3, momentum=momentum, epochs=2, batch_size=12)
    NegGradPlus(options, 0, lambda _, row: seen.append(row)).unlearn(model, Sets(retain, forget))

    velocity, losses = np.zeros_like(parameters), []
    for _ in range(2):  # an epoch is one batch: order does not matter
        (loss_r, g_r), (loss_f, g_f) = (tiny.logistic_loss(parameters, data) for data in (retain, forget))
        losses.append(0.8 * loss_r - 0.2 * loss_f)
        velocity = momentum * velocity + 0.8 * g_r - 0.2 * g_f
        parameters = parameters - 0.3 * velocity
    np.testing.assert_allclose(tiny.logistic_parameters(model), parameters, rtol=1e-9)
    assert [row["unlearn/loss"] for row in seen] == pytest.approx(losses, rel=1e-6)


def trained_on_digits(seed: int) -> tuple[nn.Module, Sets, Data]:
    """A model of 840 digits to retain and 60 to forget, and the digits that it never saw."""
    data = tiny.digits()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    model = tiny.model(classes=10, seed=seed)
    recipe = tiny.recipe(epochs=2, batch_size=32, lr=0.01)
    fit(model, data.subset(order[:900]), recipe, seed=seed)
    return model, Sets(data.subset(order[60:900]), data.subset(order[:60])), data.subset(order[900:])


@pytest.mark.parametrize("seed", range(3))
def test_on_digits_the_forget_loss_rises_and_the_retain_loss_stays(seed: int) -> None:
    model, given, test = trained_on_digits(seed)
    before = [evaluate(model, data) for data in (given.forget, given.retain, test)]
    options = NegGradPlus.Options(alpha=0.8, lr=0.002, epochs=3, batch_size=32)
    NegGradPlus(options, seed).unlearn(model, given)
    after = [evaluate(model, data) for data in (given.forget, given.retain, test)]
    assert after[0]["val/loss"] > 10 * before[0]["val/loss"]  # seen: 0.02 before, 0.9 to 1.2 after
    assert after[1]["val/loss"] < before[1]["val/loss"] + 0.1  # 0.03 to 0.09 before, 0.04 to 0.09 after
    assert after[2]["val/acc"] > before[2]["val/acc"] - 0.06


@pytest.mark.parametrize(("forget", "batch_size"), [(1, 16), (3, 16), (16, 16), (17, 16), (40, 2)])
def test_any_size_of_the_forget_set_is_cycled_through(forget: int, batch_size: int) -> None:
    model, seen = tiny.model(), list[int]()

    def record(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.extend((inputs[0][:, 0, 0, 0] * 64 + 127.5).int().tolist())

    values = torch.arange(64 + forget, dtype=torch.uint8)
    images = values.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    data = Data(images, tiny.noise(64 + forget).labels)
    given = Sets(data.subset(torch.arange(64)), data.subset(torch.arange(64, 64 + forget)))
    model.register_forward_pre_hook(record)
    NegGradPlus(NegGradPlus.Options(batch_size=batch_size, epochs=2), 0).unlearn(model, given)

    retained = [value for value in seen if value < 64]
    assert sorted(retained) == sorted(2 * list(range(64)))  # twice each: two epochs
    forgotten = [value for value in seen if value >= 64]
    size = min(batch_size, forget)
    assert len(forgotten) == 2 * (64 // batch_size) * size
    a_pass = forget // size * size
    for start in range(0, len(forgotten), a_pass):
        part = forgotten[start : start + a_pass]
        assert len(set(part)) == len(part)  # none twice before the pass is through


def test_a_divergence_is_refused_with_the_remedy() -> None:
    with pytest.raises(ExpungeError) as caught:
        NegGradPlus(NegGradPlus.Options(lr=1e30, batch_size=16), 0).unlearn(
            tiny.model(), Sets(tiny.noise(64), tiny.noise(8, seed=1))
        )
    message = "neggrad_plus diverged; lower unlearn.neggrad_plus.lr or raise its alpha"
    assert str(caught.value) == message
