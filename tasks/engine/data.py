"""Images as tensors on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.models import CENTRE, SCALE
from tasks.samples.mapped import Images, Mapped


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled images, moved to the device once, or batch by batch where they are too many for the memory.

    Attributes
    ----------
    images
        ``uint8 [N, C, H, W]``: a tensor on the device, or a :class:`~tasks.samples.mapped.Mapped`; most do
        not need to know which.
    labels
        ``int64 [N]``, on the device.
    """

    images: Any
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the images are computed with."""
        return self.labels.device

    def subset(self, rows: NDArray[np.int64] | torch.Tensor) -> Data:
        """The given rows, in the given order."""
        index = torch.as_tensor(rows, device=self.device)
        labels = self.labels.index_select(0, index)
        if isinstance(self.images, Mapped):
            return Data(self.images.take(index.cpu().numpy()), labels)
        return Data(self.images.index_select(0, index), labels)

    def pixels(self, rows: torch.Tensor) -> torch.Tensor:
        """Images ``uint8 [n, C, H, W]`` of the given rows, on the device."""
        if isinstance(self.images, Mapped):
            return torch.from_numpy(self.images[rows.cpu().numpy()]).to(self.device)
        chosen: torch.Tensor = self.images.index_select(0, rows)
        return chosen

    def expect(self, rows: torch.Tensor) -> None:
        """Let images that will be asked for soon be read meanwhile, if they lie in a file."""
        if isinstance(self.images, Mapped):
            self.images.expect(rows.cpu().numpy())

    def parts(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images and labels in order, ``size`` at a time."""
        for rows in torch.split(torch.arange(len(self), device=self.device), size):
            yield self.pixels(rows), self.labels[rows]

    def together_with(self, other: Data) -> Data:
        """Return the images of both, one set after the other."""
        labels = torch.cat((self.labels, other.labels))
        if isinstance(self.images, Mapped) and isinstance(other.images, Mapped):
            return Data(self.images.followed_by(other.images), labels)
        if isinstance(self.images, Mapped) or isinstance(other.images, Mapped):
            raise ValueError("one set is in memory and one in a file")
        return Data(torch.cat((self.images, other.images)), labels)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Labelled images, each in one group such as ``retain`` or ``test``.

    Attributes
    ----------
    images
        ``uint8 [N, C, H, W]``.
    labels
        ``int64 [N]``.
    names
        N names, the group of each image.
    """

    images: Images
    labels: NDArray[np.int64]
    names: NDArray[np.str_]

    def on_device(self, group: str, device: torch.device) -> Data:
        """Move the images of one group to the device."""
        return to_device(self.images, self.labels, np.flatnonzero(self.names == group), device)


def to_device(
    images: Images, labels: NDArray[np.int64], rows: NDArray[np.int64], device: torch.device
) -> Data:
    """Move the given rows to the device; of images in a file, the labels alone."""
    chosen = torch.from_numpy(labels[rows]).to(device)
    if isinstance(images, Mapped):
        return Data(images.take(rows), chosen)
    return Data(torch.from_numpy(images[rows]).to(device), chosen)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """``uint8 [B, C, H, W]`` to ``float32`` in channels-last layout, about zero mean and unit spread."""
    floats = images.to(torch.float32, memory_format=torch.channels_last)
    return floats.sub_(CENTRE).div_(SCALE)
