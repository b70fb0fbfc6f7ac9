"""Where decoded images go: into memory, or into a file without a name where they would be too many."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.samples import mapped
from tasks.samples.jpegs import Jpeg, Jpegs
from tasks.samples.mapped import Images, Mapped

FOLDER = Path("data")
"""Where the file lies as long as it is open: beside what is made of it, on the same disk."""


class Sink(ABC):
    """Takes images in order.

    Attributes
    ----------
    count
        Number of images to come.
    shape
        ``(C, H, W)`` of each; a grey image is repeated over three channels.
    where
        The source, for messages.
    """

    def __init__(self, count: int, shape: tuple[int, ...], where: Path) -> None:
        self.count, self.shape, self.where = count, shape, where

    @staticmethod
    def of(count: int, shape: tuple[int, ...], where: Path, *, as_jpeg: bool = False) -> Sink:
        """Choose by the size of the set, or one that takes JPEG files."""
        if as_jpeg:
            return _Jpegs(count, shape, where)
        kind = _File if count * int(np.prod(shape)) > mapped.IN_MEMORY else _Memory
        return kind(count, shape, where)

    @abstractmethod
    def put(self, row: int, image: Any) -> None:
        """Take the next image, of row ``row``."""

    @abstractmethod
    def finish(self, count: int) -> Images:
        """Return the first ``count`` images."""

    def widened(self, done: int, channels: int) -> Sink:
        """Return a sink for more channels, with the images that were taken so far."""
        wide = Sink.of(self.count, (channels, *self.shape[1:]), self.where)
        before = self.finish(done)
        for row, image in enumerate(before):
            wide.put(row, image)
        return wide


class _Memory(Sink):
    def __init__(self, count: int, shape: tuple[int, ...], where: Path) -> None:
        super().__init__(count, shape, where)
        self._images = np.empty((count, *shape), dtype=np.uint8)

    def put(self, row: int, image: NDArray[np.uint8]) -> None:
        self._images[row] = image

    def finish(self, count: int) -> Images:
        return self._images[:count]


class _File(Sink):
    """Writes to a file that has no name, so that nothing of it stays when the process ends, however."""

    def __init__(self, count: int, shape: tuple[int, ...], where: Path) -> None:
        super().__init__(count, shape, where)
        FOLDER.mkdir(exist_ok=True)
        size = count * int(np.prod(shape))
        free = os.statvfs(FOLDER)
        if 2 * size > free.f_bavail * free.f_frsize:
            raise ExpungeError(
                f"{where}: {count} images of {shape[2]}×{shape[1]} need {2 * size / 2**30:.0f} GiB on the "
                f"disk of {FOLDER.absolute()}, {free.f_bavail * free.f_frsize / 2**30:.0f} are free; "
                "set split.resize to a smaller side in pixels"
            )
        self._file: BinaryIO = tempfile.TemporaryFile(dir=FOLDER)  # noqa: SIM115  (lives as long as the images)

    def put(self, row: int, image: NDArray[np.uint8]) -> None:  # noqa: ARG002
        self._file.write(np.ascontiguousarray(np.broadcast_to(image, self.shape)).data)

    def finish(self, count: int) -> Images:
        with self._file:  # what is mapped stays until nobody reads it any more
            self._file.flush()
            return Mapped.of_bytes(self._file, count, self.shape)


class _Jpegs(Sink):
    """Writes JPEG files one after the other to a file that has no name."""

    def __init__(self, count: int, shape: tuple[int, ...], where: Path) -> None:
        super().__init__(count, shape, where)
        FOLDER.mkdir(exist_ok=True)
        self._file: BinaryIO = tempfile.TemporaryFile(dir=FOLDER)  # noqa: SIM115  (lives as long as the images)
        self._sizes: list[int] = []

    def put(self, row: int, image: Jpeg) -> None:  # noqa: ARG002
        self._file.write(image.content)
        self._sizes.append(len(image.content))

    def finish(self, count: int) -> Images:
        with self._file:
            self._file.flush()
            return Mapped([Jpegs.of_bytes(self._file, self._sizes[:count], self.shape)])

    def widened(self, done: int, channels: int) -> Sink:  # noqa: ARG002
        """Return itself: a grey JPEG fills all channels once it is decoded."""
        self.shape = (channels, *self.shape[1:])
        return self
