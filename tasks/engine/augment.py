"""Augmentation of whole batches on the device, in uint8 and without a loop over samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tasks.core.params import Augment


def augment(
    images: torch.Tensor,
    settings: Augment,
    generator: torch.Generator,
    mirrored: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply the parts that ``settings`` switches on: crop, then flip, then cutout.

    Parameters
    ----------
    images
        ``uint8 [B, C, H, W]``; not changed.
    settings
        ``crop``: shift by up to that many pixels, edges reflected. ``flip``: mirror half of the images.
        ``cutout``: blank one square of that side an image (DeVries & Taylor 2017).
    generator
        Source of randomness, on the images' device.
    mirrored
        ``bool [B]``, which images are mirrored; drawn if there is none.
    """
    if settings.crop:
        images = crop(images, settings.crop, generator)
    if settings.flip:
        images = flip(images, generator) if mirrored is None else mirror(images, mirrored)
    if settings.cutout:
        images = cutout(images, settings.cutout, generator)
    return images


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability one half."""
    return mirror(images, torch.rand(len(images), generator=generator, device=images.device) < 0.5)


def mirror(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images, ``bool [B]``, left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def sides(count: int, *, seed: int, epoch: int, device: torch.device) -> torch.Tensor:
    """Which of ``count`` images an epoch shows mirrored, ``bool [count]``: in the next one, the others.

    Each image draws once a training on which side it begins (Jordan 2024, section 3.6): over two epochs the
    net sees both sides of all, where independent draws show a half of them the same side twice.
    """
    generator = torch.Generator(device).manual_seed(seed)
    first = torch.rand(count, generator=generator, device=device) < 0.5
    return first if epoch % 2 else ~first


def scaled(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Images ``float [B, C, H, W]`` with both sides scaled, bilinearly and without aliasing."""
    height, width = sides_at(images.shape[2:], scale)
    if (height, width) == images.shape[2:]:
        return images
    small = nn.functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def sides_at(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width in pixels, of images of that size, at a scale."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def crop(images: torch.Tensor, pad: int, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by −``pad`` … ``pad`` pixels in both directions, reflecting at the edges."""
    height, width = images.shape[2:]
    padded = _reflect(images, pad)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2p+1, 2p+1, H, W], a view
    dy, dx = torch.randint(2 * pad + 1, (2, len(images)), generator=generator, device=images.device)
    return windows[torch.arange(len(images), device=images.device), :, dy, dx]


def _reflect(images: torch.Tensor, pad: int) -> torch.Tensor:
    rows = _reflected_index(images.shape[2], pad, images.device)
    columns = _reflected_index(images.shape[3], pad, images.device)
    return images.index_select(2, rows).index_select(3, columns)


def _reflected_index(size: int, pad: int, device: torch.device) -> torch.Tensor:
    """``pad`` … 1, 0 … size−1, size−2 …: works for integers, which ``functional.pad`` does not reflect.

    The pattern repeats after ``2 · (size − 1)``, so a pad may be wider than the image.
    """
    period = max(1, 2 * (size - 1))
    index = torch.arange(-pad, size + pad, device=device).remainder(period)
    return torch.minimum(index, period - index)


def cutout(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Set one square of ``side`` pixels an image to mid-grey; its centre is uniform over the image."""
    count, _, height, width = images.shape
    centre_y = torch.randint(height, (count, 1), generator=generator, device=images.device)
    centre_x = torch.randint(width, (count, 1), generator=generator, device=images.device)
    inside_y = _within(torch.arange(height, device=images.device), centre_y, side)
    inside_x = _within(torch.arange(width, device=images.device), centre_x, side)
    return images.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 128)


def _within(positions: torch.Tensor, centre: torch.Tensor, side: int) -> torch.Tensor:
    offset = positions - (centre - side // 2)
    return (offset >= 0) & (offset < side)
