from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tasks.engine.data import normalise
from tasks.engine.predict import accuracy, cross_entropy, logits
from tests import tiny


@pytest.fixture
def trained() -> nn.Module:
    """Batch norm with statistics of its own, so that training and evaluation mode differ."""
    model = tiny.model()
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(normalise(tiny.noise(32, seed=seed).images))
    return model


@pytest.mark.parametrize("batch_size", [1, 7, 25, 1000])
def test_logits_are_the_models_own_in_evaluation_mode_whatever_the_batch_size(
    trained: nn.Module, batch_size: int
) -> None:
    images = tiny.noise(25, seed=9).images
    result = logits(trained, images, batch_size)
    trained.eval()
    with torch.no_grad():
        expected = trained(normalise(images)).numpy()
    assert result.dtype == np.float32
    assert result.shape == (25, 3)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_statistics_of_the_model_are_as_before(trained: nn.Module, training: bool) -> None:
    trained.train(training)
    before = tiny.state(trained)
    logits(trained, tiny.noise(10).images)
    assert all(module.training is training for module in trained.modules())
    assert tiny.equal(tiny.state(trained), before)


def test_numpy_images_are_taken_and_left_as_they_are(trained: nn.Module) -> None:
    images = tiny.noise(10).images.numpy()
    before = images.copy()
    result = logits(trained, images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(result, logits(trained, torch.from_numpy(before)))


def test_a_double_precision_model_gives_float32() -> None:
    assert logits(tiny.linear(64), tiny.noise(4).images).dtype == np.float32


def test_accuracy_is_the_share_of_hits() -> None:
    rows = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0], [9.0, 2.0, 1.0]])
    assert accuracy(rows, np.array([1, 0, 2, 1])) == 0.75


def test_cross_entropy_is_the_mean_in_nats() -> None:
    rows = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=np.float32))
    assert cross_entropy(rows, np.array([0, 2])) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2, rel=1e-6)
