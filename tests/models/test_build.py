"""What every architecture promises; a new file in ``tasks/models`` is tested here without a change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.plugins import choices
from tasks.engine.data import normalise
from tasks.models import MODELS, build
from tests import tiny

every_model = pytest.mark.parametrize("name", choices("models"))


def make(name: str, *, channels: int = 3, size: tuple[int, int] = (32, 32), classes: int = 10) -> nn.Module:
    if name == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return build(name, MODELS.get(name).Options(), channels=channels, size=size, classes=classes)


@every_model
@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, (28, 28), 10), (3, (32, 32), 7), (1, (8, 8), 2), (3, (9, 30), 100)]
)
def test_images_become_one_logit_a_class(
    name: str, channels: int, size: tuple[int, int], classes: int
) -> None:
    model = make(name, channels=channels, size=size, classes=classes)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@every_model
def test_images_that_are_too_small_are_refused_with_the_key_that_helps(name: str) -> None:
    smallest = MODELS.get(name).smallest
    make(name, size=(smallest, smallest))
    with pytest.raises(ExpungeError) as caught:
        make(name, size=(40, smallest - 1))
    assert str(caught.value) == (
        f"model {name} needs images of at least {smallest}×{smallest} pixels, "
        f"these are 40×{smallest - 1}; set split.resize"
    )


@every_model
def test_the_memory_layout_changes_nothing(name: str) -> None:
    model = make(name).eval()
    images = normalise(tiny.noise(4, channels=3, size=32).images)
    assert images.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model.to(memory_format=torch.contiguous_format)(images.contiguous())
        result = make(name).eval()(images)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


@every_model
def test_weights_are_channels_last_and_trainable(name: str) -> None:
    model = make(name)
    for weight in model.parameters():
        assert weight.requires_grad
        assert weight.dim() != 4 or weight.is_contiguous(memory_format=torch.channels_last)


@every_model
def test_an_image_is_classified_alike_whatever_images_are_beside_it(name: str) -> None:
    model = make(name, size=(16, 16)).eval()
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExpungeError) as caught:
        MODELS.get("vgg")
    assert str(caught.value) == f"'vgg' is not in tasks/models; known: {', '.join(choices('models'))}"
