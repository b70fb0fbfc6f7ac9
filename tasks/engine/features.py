"""Features of images: what the last layer of a model is given, and which images are nearly alike in them.

A network brings what it takes for the same thing to nearly the same features, also where the pixels differ
by more than a picture does that was saved again. How like two images are is the cosine of the angle between
their features. What it overlooks depends on the model; ``bench/near_features.py`` measures that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from tasks.core.errors import ExpungeError
from tasks.engine.data import normalise
from tasks.engine.predict import at_once
from tasks.samples.mapped import Images, taken

TOLERANCE = 1e-6
"""By how much a cosine may be smaller than is asked: equal images in two batches differ by rounding."""

Rows = NDArray[np.int64]


def near(model: nn.Module, images: Images, asked: Sequence[Rows], least: float) -> list[Rows]:
    """Find the images whose features are nearly those of some that are asked for.

    Whoever is near to a neighbour alone is not found: what is alike is no chain. The images are read once,
    a batch at a time, however many groups there are; in memory are the features of those that are asked for.

    Parameters
    ----------
    model
        In evaluation mode.
    images
        ``uint8 [N, C, H, W]``, in memory or not.
    asked
        Groups of rows.
    least
        The smallest cosine at which two images are near, above 0 and at most 1.

    Returns
    -------
    list of NDArray
        For each group the rows that are near to one of its own, ascending, without its own.

    Raises
    ------
    ExpungeError
        If the model has no last layer that is linear.
    """
    every = np.unique(np.concatenate([rows.astype(np.int64) for rows in asked]))
    if not every.size:
        return [every for _ in asked]
    layer = _last_layer(model, images[every[:1]])
    wanted = torch.cat([features for _, features in _features(model, layer, taken(images, every))])
    places = [np.searchsorted(every, rows) for rows in asked]
    found: list[list[Rows]] = [[] for _ in asked]
    for start, features in _features(model, layer, images):
        is_near = (features @ wanted.T >= least - TOLERANCE).cpu().numpy()
        for rows, columns in zip(found, places, strict=True):
            rows.append(start + np.flatnonzero(is_near[:, columns].any(axis=1)))
    return [np.setdiff1d(np.concatenate(rows), own) for rows, own in zip(found, asked, strict=True)]


def _features(model: nn.Module, layer: nn.Module, images: Images) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first row of each batch, and its images' features ``float64 [B, D]``, of length one."""
    step = at_once(images.shape)
    for start in range(0, len(images), step):
        yield start, _of_batch(model, layer, images[start : start + step])


@torch.inference_mode()
def _of_batch(model: nn.Module, layer: nn.Module, images: NDArray[np.uint8]) -> torch.Tensor:
    given: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda _, args, named: given.append(args[0] if args else named["input"]), with_kwargs=True
    )
    try:
        _logits(model, images)
    finally:
        hook.remove()
    pooled = given[-1].double()
    if isinstance(layer, nn.Conv2d):
        pooled = pooled.flatten(2).mean(2)
    elif pooled.ndim > 2:  # several features an image, as a transformer has them
        pooled = pooled.flatten(1, -2).mean(1)
    return normalize(pooled, dim=1)


@torch.inference_mode()
def _last_layer(model: nn.Module, image: NDArray[np.uint8]) -> nn.Module:
    """Return the layer that makes the logits: of those that have as many outputs, the one called last."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.append(module))
        for module in model.modules()
        if _outputs(module)
    ]
    try:
        classes = _logits(model, image).shape[1]
    finally:
        for hook in hooks:
            hook.remove()
    fitting = [module for module in called if _outputs(module) == classes]
    if not fitting:
        raise ExpungeError(
            "the model has no last linear layer or 1×1 convolution that makes the logits, so there are no "
            "features of images to compare"
        )
    return fitting[-1]


def _outputs(module: nn.Module) -> int:
    """Outputs of a linear layer or of a convolution that sees one pixel; 0 of any other."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        return module.out_channels
    return 0


def _logits(model: nn.Module, images: NDArray[np.uint8]) -> torch.Tensor:
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    made: torch.Tensor = model(normalise(torch.from_numpy(images).to(device)))
    return made
