from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.engine.data import normalise
from tasks.engine.features import near
from tests import tiny
from tests.samples.building import in_files

Rows = NDArray[np.int64]


def flat(inputs: int, outputs: int = 3) -> nn.Module:
    """A linear layer alone: its features are the pixels themselves, about 127.5."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)).eval()


def pictures(*pixels: tuple[int, ...]) -> NDArray[np.uint8]:
    """Images of one row of pixels each."""
    return np.array(pixels, dtype=np.uint8)[:, None, None, :]


def rows(*numbers: int) -> Rows:
    return np.array(numbers, dtype=np.int64)


def told(found: list[Rows]) -> list[list[int]]:
    return [each.tolist() for each in found]


OF_ANGLES = pictures((128, 128), (129, 128), (128, 127), (127, 127), (130, 129))
"""Features that point to (1, 1), (3, 1), (1, -1), (-1, -1) and (5, 3), beside their lengths."""


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (1.0, []),
        (8 / np.sqrt(2 * 34), [4]),  # the cosine of (1, 1) and (5, 3)
        (8 / np.sqrt(2 * 34) + 1e-4, []),
        (4 / np.sqrt(20), [1, 4]),  # that of (1, 1) and (3, 1)
        (4 / np.sqrt(20) + 1e-4, [4]),
        (1e-3, [1, 4]),  # neither what is at a right angle, nor the opposite
    ],
)
def test_the_cosine_decides(least: float, expected: list[int]) -> None:
    assert told(near(flat(2), OF_ANGLES, [rows(0)], least)) == [expected]


def test_whoever_is_asked_for_is_not_his_own_neighbour_and_no_chain_is_followed() -> None:
    chain = pictures((128, 128), (130, 129), (129, 128))
    least = 0.96  # the first and the second, the second and the third, but not the first and the third
    groups = [rows(0), rows(1), rows(2), rows(0, 2), rows(1, 0), rows()]
    assert told(near(flat(2), chain, groups, least)) == [[1], [0, 2], [1], [1], [2], []]


def test_equal_pictures_are_found_by_the_largest_cosine_that_there_is() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
    images[[7, 150, 299]] = images[3]
    assert told(near(tiny.model(channels=3).eval(), images, [rows(3), rows(4)], 1.0)) == [[7, 150, 299], []]


def brute(model: nn.Module, images: NDArray[np.uint8], asked: Rows, least: float) -> list[int]:
    """Every pair, one after another, by the layers of ``grey_cnn`` before its last."""
    net = model.net
    assert isinstance(net, nn.Module)
    with torch.no_grad():
        given = net.get_submodule("blocks")(normalise(torch.from_numpy(images)))
        for layer in list(net.get_submodule("head").children())[:-1]:
            given = layer(given)
    features = given.double().numpy()
    found = set()
    for one in asked.tolist():
        for other in set(range(len(images))) - set(asked.tolist()):
            lengths = np.linalg.norm(features[one]) * np.linalg.norm(features[other])
            if features[one] @ features[other] / lengths >= least:
                found.add(other)
    return sorted(found)


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_of_batches_finds_what_every_pair_alone_does_in_memory_and_in_a_file(
    seed: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    model = tiny.model(seed=seed).eval()
    images = random.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)[random.integers(0, 5, 290)]
    noise = random.integers(-40, 41, images.shape)
    images = np.clip(images + noise, 0, 255).astype(np.uint8)
    groups = [np.sort(random.choice(290, size=size, replace=False)) for size in (1, 4, 20)]
    least = float(random.uniform(0.97, 0.999))
    found = near(model, images, groups, least)
    assert told(found) == [brute(model, images, each, least) for each in groups]
    of_file = near(model, in_files(images, tmp_path, each=7), groups, least)
    assert told(of_file) == told(found)


def test_what_is_compared_is_given_to_the_layer_that_is_called_last_and_makes_the_logits() -> None:
    class Backwards(nn.Module):
        """Has its layers in another order than it calls them, and one that it never calls."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)
            self.before = nn.Linear(2, 2, bias=False)
            self.auxiliary = nn.Linear(2, 3)
            nn.init.eye_(self.before.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.head(input=self.before(x.flatten(1)))
            return made

    assert told(near(Backwards().eval(), OF_ANGLES, [rows(0)], 0.89)) == [[1, 4]]


def test_a_convolution_of_one_pixel_is_a_last_layer_too_and_its_features_are_means() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = np.repeat(np.repeat(OF_ANGLES.reshape(5, 2, 1, 1), 2, axis=2), 2, axis=3)
    images[:, :, 0, 0] += 1  # opposite changes, which a mean does not see
    images[:, :, 1, 1] -= 1
    assert told(near(model, images, [rows(0)], 0.89)) == [[1, 4]]


def test_of_several_features_an_image_their_mean_counts() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (2, 2)), nn.Flatten(1, 2), PerToken()).eval()
    images = np.concatenate([OF_ANGLES, OF_ANGLES], axis=3)
    assert told(near(model, images, [rows(0)], 0.89)) == [[1, 4]]


class PerToken(nn.Module):
    """The mean of the logits of several features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(x).mean(1)
        return made


def test_features_of_length_nought_are_near_to_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    first = model.get_submodule("1")
    assert isinstance(first, nn.Linear)
    nn.init.zeros_(first.weight)
    nn.init.zeros_(first.bias)
    assert told(near(model, OF_ANGLES, [rows(0)], 1e-3)) == [[]]


def test_a_model_without_a_last_layer_is_refused() -> None:
    for model in (
        nn.Flatten(),
        nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Linear(3, 2), nn.ZeroPad1d(1)),
    ):
        with pytest.raises(
            ExpungeError, match="has no last linear layer or 1×1 convolution that makes the logits"
        ):
            near(model.eval(), OF_ANGLES, [rows(0)], 0.5)


def test_the_model_is_left_without_hooks() -> None:
    model = flat(2)
    near(model, OF_ANGLES, [rows(0)], 0.5)
    assert not any(module._forward_pre_hooks for module in model.modules())
