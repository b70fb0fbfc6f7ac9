"""Images in files, as :mod:`tasks.samples.shards` maps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.samples.mapped import Mapped, Pixels


def in_files(images: NDArray[np.uint8], folder: Path, *, each: int) -> Mapped:
    """Write images into files of ``each``, and map them."""
    files = []
    for start in range(0, len(images), each):
        path = folder / f"from-{start}.npy"
        np.save(path, images[start : start + each])
        files.append(Pixels(np.lib.format.open_memmap(path, mode="r")))
    return Mapped(files)
