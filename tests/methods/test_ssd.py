from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from tasks.engine.data import Data, normalise
from tasks.engine.training import Epoch
from tasks.methods import Sets
from tasks.methods.ssd import SSD, importance
from tests import tiny


def gradients(model: nn.Module, data: Data) -> list[list[torch.Tensor]]:
    """Gradient of the loss of each sample, by a loop."""
    model.eval()
    found = []
    for row in range(len(data)):
        loss = cross_entropy(model(normalise(data.images[row : row + 1])), data.labels[row : row + 1])
        found.append(list(torch.autograd.grad(loss, list(model.parameters()))))
    return found


def test_with_batches_of_one_the_importance_is_the_diagonal_of_the_empirical_fisher_information() -> None:
    model, data = tiny.model(), tiny.noise(15)
    expected = [
        torch.stack(parts).square().mean(dim=0) for parts in zip(*gradients(model, data), strict=True)
    ]
    for found, wanted in zip(importance(model, data, 1), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-8)


def test_with_larger_batches_it_is_the_squared_gradient_of_their_mean_losses() -> None:
    model, data = tiny.linear(9), tiny.noise(10, size=3)
    each = [torch.stack(parts) for parts in zip(*gradients(model, data), strict=True)]
    for found, parts in zip(importance(model, data, 4), each, strict=True):
        batches = (parts[:4], parts[4:8], parts[8:])
        wanted = torch.stack([len(batch) * batch.mean(dim=0) ** 2 for batch in batches]).sum(dim=0) / 10
        torch.testing.assert_close(found, wanted)


class TwoWeights(nn.Module):
    """Two pixels, two classes: logit ``i`` is ``w_i · x_i``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x.double().flatten(1)


FORGET, RETAIN = (255, 127), (128, 255)
"""One image to forget, whose first pixel is far from grey, and three to retain, whose second is."""


def two_pixels() -> Sets:
    images = torch.tensor([FORGET, *[RETAIN] * 3], dtype=torch.uint8).reshape(4, 1, 1, 2)
    labels = torch.tensor([0, 1, 1, 1])
    return Sets(Data(images[1:], labels[1:]), Data(images[:1], labels[:1]))


def squared_gradient(pixels: tuple[int, int], label: int) -> NDArray[np.float64]:
    """``((p − y) · x)²`` for the two weights, by hand."""
    x = (np.array(pixels) - 127.5) / 64
    p = np.exp(np.array([1.0, 2.0]) * x)
    return ((p / p.sum() - np.eye(2)[label]) * x) ** 2  # type: ignore[no-any-return]


@pytest.mark.parametrize("alpha", [0.5, 3.0, 3.9, 4.1, 100.0])
@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0, 10.0])
def test_two_weights_are_selected_and_dampened_by_the_papers_equations(alpha: float, strength: float) -> None:
    forget = squared_gradient(FORGET, 0)
    everything = (forget + 3 * squared_gradient(RETAIN, 1)) / 4  # retain and forget set
    selected = forget > alpha * everything
    beta = np.minimum(strength * everything / forget, 1)
    expected = np.where(selected, beta, 1) * [1.0, 2.0]

    model = TwoWeights()
    SSD(SSD.Options(alpha=alpha, strength=strength, batch_size=1), 0).unlearn(model, two_pixels())
    np.testing.assert_allclose(model.w.detach().numpy(), expected, rtol=1e-6)
    assert selected.tolist() == [alpha < 4, False]  # the first weight is 4 times as important to F


def test_the_share_of_dampened_weights_is_told() -> None:
    seen: list[tuple[int, Epoch]] = []
    options = SSD.Options(alpha=3.0, batch_size=1)
    SSD(options, 0, lambda epoch, row: seen.append((epoch, row))).unlearn(TwoWeights(), two_pixels())
    assert seen == [(1, {"unlearn/dampened": 0.5})]


def test_weights_without_any_gradient_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        list(model.parameters())[1][0] = -1e4  # the bias of a unit that no image switches on: 0 / 0
    before = tiny.state(model)
    data = tiny.noise(20)
    given = Sets(data.subset(torch.arange(5, 20)), data.subset(torch.arange(5)))
    SSD(SSD.Options(alpha=1e-3, strength=0.5, batch_size=1), 0).unlearn(model, given)
    after = tiny.state(model)
    assert torch.equal(after["1.weight"][0], before["1.weight"][0])
    assert torch.equal(after["3.weight"][:, 0], before["3.weight"][:, 0])
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert not tiny.equal(after, before)


@pytest.mark.parametrize("seed", range(3))
def test_no_weight_grows_or_changes_its_sign(seed: int) -> None:
    model, data = tiny.model(seed=seed), tiny.noise(40, seed=seed)
    before = tiny.state(model)
    given = Sets(data.subset(torch.arange(5, 40)), data.subset(torch.arange(5)))
    SSD(SSD.Options(alpha=1.0), seed).unlearn(model, given)
    after = tiny.state(model)
    for name, _ in model.named_parameters():
        assert bool((after[name].abs() <= before[name].abs()).all())
        assert bool((after[name] * before[name] >= 0).all())
    assert not tiny.equal(after, before)


def test_both_importances_are_taken_over_batches_of_one_size_however_few_images_are_to_be_forgotten() -> None:
    data, ends = tiny.noise(40), []
    given = Sets(data.subset(torch.arange(2, 40)), data.subset(torch.arange(2)))
    for batch_size in (16, 2):
        model = tiny.model()
        SSD(SSD.Options(alpha=1.0, batch_size=batch_size), 0).unlearn(model, given)
        ends.append(tiny.state(model))
    assert tiny.equal(ends[0], ends[1])


def test_the_cap_on_samples_counts() -> None:
    data = tiny.noise(40)
    given = Sets(data.subset(torch.arange(5, 40)), data.subset(torch.arange(5)))
    ends = {}
    for samples in (10, 40, 10_000):
        model = tiny.model()
        SSD(SSD.Options(alpha=1.0, samples=samples), 0).unlearn(model, given)
        ends[samples] = tiny.state(model)
    assert tiny.equal(ends[40], ends[10_000])
    assert not tiny.equal(ends[10], ends[40])
