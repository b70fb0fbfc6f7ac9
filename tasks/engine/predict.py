"""Logits of many images, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.engine.data import normalise
from tasks.samples.mapped import Images, Mapped

BATCH = 128
"""Images a forward pass: more are slower on a CPU (caches) and fragment the heap."""

FLOATS = 2**27
"""Bytes of a forward pass's images: of large ones fewer are scored at once."""


def at_once(shape: Sequence[int], most: int = BATCH) -> int:
    """How many of images of shape ``[N, C, H, W]`` one forward pass takes."""
    return max(1, min(most, FLOATS // (4 * math.prod(shape[1:]))))


@torch.inference_mode()
def logits(model: nn.Module, images: Images | torch.Tensor, batch_size: int = BATCH) -> NDArray[Any]:
    """Logits ``float32 [N, K]`` of images ``uint8 [N, C, H, W]``, in evaluation mode.

    Always in float32, whatever precision the training used: an attack compares losses that differ by
    less than what bfloat16 resolves. The model's training mode is as before afterwards.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    every = images if isinstance(images, Mapped) else torch.as_tensor(images)
    batch_size = at_once(every.shape, batch_size)
    rows = torch.empty(0)
    for start in range(0, len(every), batch_size):
        found = model(normalise(torch.as_tensor(every[start : start + batch_size]).to(device)))
        if not start:  # rows kept one by one would pin the heap between the batches' large tensors
            rows = torch.empty((len(every), found.shape[1]))
        rows[start : start + batch_size] = found
    model.train(was_training)
    return rows.numpy()


def accuracy(logits_NK: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of rows whose largest logit is the label's."""
    return float((logits_NK.argmax(axis=1) == labels).mean())


def cross_entropy(logits_NK: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats."""
    rows = torch.from_numpy(logits_NK)
    return float(nn.functional.cross_entropy(rows, torch.from_numpy(labels)))
