"""Images, recipes and models so small that a training takes a fraction of a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.params import Recipe
from tasks.engine.data import Data
from tasks.engine.training import Epoch
from tasks.engine.weights import Info, create


def noise(count: int, *, channels: int = 1, size: int = 8, classes: int = 3, seed: int = 0) -> Data:
    """Random images with random labels: nothing to learn, all to memorise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return Data(images, torch.randint(0, classes, (count,), generator=generator))


def digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, ``uint8 [N, 1, 8, 8]``."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)[:, None]
    return Data(torch.from_numpy(images), torch.from_numpy(loaded.target.astype(np.int64)))


def recipe(**changes: Any) -> Recipe:
    """Three epochs of small batches; a key of the recipe may be changed."""
    return Recipe(**{"epochs": 3, "batch_size": 16, "lr": 0.005, **changes})


def info(*, channels: int = 1, size: int = 8, classes: int = 3) -> Info:
    """``grey_cnn``: convolutions, batch norm, a linear head."""
    return Info(
        sha256="",
        model="grey_cnn",
        options={},
        channels=channels,
        size=(size, size),
        classes=tuple(f"class {number}" for number in range(classes)),
    )


def model(*, channels: int = 1, size: int = 8, classes: int = 3, seed: int = 0) -> nn.Module:
    """The model of :func:`info`, freshly initialised."""
    return create(info(channels=channels, size=size, classes=classes), seed)


def linear(inputs: int, classes: int = 3, seed: int = 0) -> nn.Module:
    """Multinomial logistic regression on normalised pixels, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), ToDouble(), nn.Linear(inputs, classes).double())


def logistic_loss(
    parameters: NDArray[np.float64], data: Data, smoothing: float = 0.0
) -> tuple[float, NDArray[np.float64]]:
    """Mean loss of logistic regression and its gradient, by hand; ``parameters`` are ``[weight | bias]``."""
    x = (data.images.numpy().reshape(len(data), -1) - 127.5) / 64
    logits = x @ parameters[:, :-1].T + parameters[:, -1]
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    classes = logits.shape[1]
    target = (1 - smoothing) * np.eye(classes)[data.labels.numpy()] + smoothing / classes
    error = (np.exp(log_p) - target) / len(data)
    return float(-(target * log_p).sum() / len(data)), np.concatenate(
        (error.T @ x, error.sum(axis=0)[:, None]), axis=1
    )


def logistic_parameters(model: nn.Module) -> NDArray[np.float64]:
    """``[weight | bias]`` of :func:`linear`, a copy."""
    weight, bias = (value.detach().numpy() for value in model.parameters())
    return np.concatenate((weight, bias[:, None]), axis=1)


class ToDouble(nn.Module):
    """Cast to float64, so that a comparison is not blurred by float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same numbers."""
        return x.double()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy of all weights and statistics."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def untimed(history: list[Epoch]) -> list[Epoch]:
    """Epochs without the speed, which no two runs share."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in history]
