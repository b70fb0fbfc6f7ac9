"""The sizes and costs that the docstrings of the architectures state."""

from __future__ import annotations

import re

import pytest
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from tasks.models import MODELS
from tests import tiny
from tests.models.test_build import make


def weights(name: str, channels: int, size: int) -> int:
    return sum(weight.numel() for weight in make(name, channels=channels, size=(size, size)).parameters())


@pytest.mark.parametrize(("name", "channels", "size"), [("grey_cnn", 1, 28), ("small_cnn", 3, 32)])
def test_the_docstring_states_the_number_of_weights(name: str, channels: int, size: int) -> None:
    stated = re.search(r"([\d,]+) weights for 10 classes", MODELS.get(name).__doc__ or "")
    assert stated is not None
    assert weights(name, channels, size) == pytest.approx(int(stated[1].replace(",", "")), rel=0.02)


def test_resnet18_has_as_many_weights_as_torchvisions() -> None:
    expected = sum(weight.numel() for weight in resnet18(num_classes=10).parameters())
    assert weights("resnet18", 3, 32) == expected == 11_181_642


def test_a_grey_stem_has_a_third_of_the_weights() -> None:
    assert weights("resnet18", 3, 32) - weights("resnet18", 1, 32) == 2 * 64 * 7 * 7
    assert weights("resnet18_cifar", 3, 32) - weights("resnet18_cifar", 1, 32) == 2 * 64 * 3 * 3


def test_the_cifar_stem_costs_15_times_the_arithmetic() -> None:
    costs = {}
    for name in ("resnet18", "resnet18_cifar"):
        model = make(name).eval()
        with FlopCounterMode(display=False) as counter:
            model(tiny.noise(1, channels=3, size=32).images.float())
        costs[name] = counter.get_total_flops()
    assert costs["resnet18_cifar"] / costs["resnet18"] == pytest.approx(15, abs=0.1)
