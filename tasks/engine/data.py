"""Images as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.models import CENTRE, SCALE


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled images, moved to the device once.

    Attributes
    ----------
    images
        ``uint8 [N, C, H, W]``.
    labels
        ``int64 [N]``.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.images.device

    def subset(self, rows: NDArray[np.int64] | torch.Tensor) -> Data:
        """Copy of the given rows, in the given order."""
        index = torch.as_tensor(rows, device=self.device)
        return Data(self.images.index_select(0, index), self.labels.index_select(0, index))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Labelled images in memory, each in one group such as ``retain`` or ``test``.

    Attributes
    ----------
    images
        ``uint8 [N, C, H, W]``.
    labels
        ``int64 [N]``.
    names
        N names, the group of each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]

    def on_device(self, group: str, device: torch.device) -> Data:
        """Move the images of one group to the device."""
        return to_device(self.images, self.labels, np.flatnonzero(self.names == group), device)


def to_device(
    images: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64], device: torch.device
) -> Data:
    """Move the given rows of an image array to the device."""
    return Data(torch.from_numpy(images[rows]).to(device), torch.from_numpy(labels[rows]).to(device))


def normalise(images: torch.Tensor) -> torch.Tensor:
    """``uint8 [B, C, H, W]`` to ``float32`` in channels-last layout, about zero mean and unit spread."""
    floats = images.to(torch.float32, memory_format=torch.channels_last)
    return floats.sub_(CENTRE).div_(SCALE)
