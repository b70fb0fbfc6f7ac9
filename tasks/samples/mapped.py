"""Images that lie in a file because they would be too many for the memory.

A :class:`Mapped` is read by rows, like an array, and never as a whole: what was read is given back to the
system at once, so the memory that a process takes does not grow with the set.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 2**29
"""Bytes of images up to which a set is held in memory."""

BLOCK = 2**24
"""Bytes that are read at once."""

HELD = 16
"""Images between whose reading memory is given back: the system maps up to 2 MiB around each."""

Rows = NDArray[np.int64]


class Mapped:
    """Images ``uint8 [N, C, H, W]`` in a memory-mapped file.

    Parameters
    ----------
    file
        All images of the file, ``uint8 [M, C, H, W]``.
    rows
        ``int64 [N]``, which of them, in which order; None for all.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, file: np.memmap[tuple[int, ...], np.dtype[np.uint8]], rows: Rows | None = None
    ) -> None:
        self._file = file
        self._rows: Rows = np.arange(len(file)) if rows is None else rows

    @classmethod
    def of_bytes(cls, file: BinaryIO, count: int, shape: tuple[int, ...]) -> Mapped:
        """Read a file that holds the pixels of ``count`` images of ``shape`` and nothing else."""
        return cls(np.memmap(file, np.uint8, "r", shape=(count, *shape)))

    @classmethod
    def of_array(cls, path: Path) -> Mapped:
        """Read a file as ``np.save`` writes it.

        Raises
        ------
        ValueError, OSError
            If it is none, or holds something else than images.
        """
        file = np.lib.format.open_memmap(path, mode="r")
        if file.dtype != np.uint8 or file.ndim != 4:
            raise ValueError("no uint8 [N, C, H, W] array")
        return cls(file)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return (len(self._rows), *self._file.shape[1:])

    @overload
    def __getitem__(self, key: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.uint8]: ...
    def __getitem__(self, key: int | slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Copy images: one ``[C, H, W]`` by its row, or several ``[n, C, H, W]``."""
        rows = np.atleast_1d(self._rows[key])
        found = np.empty((len(rows), *self._file.shape[1:]), dtype=np.uint8)
        for start in range(0, len(rows), HELD):
            some = slice(start, start + HELD)
            np.take(self._file, rows[some], axis=0, out=found[some])
            self._give_back()
        one: NDArray[np.uint8] = found[0] if isinstance(key, int | np.integer) else found
        return one

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all images into memory."""
        return self[:].astype(dtype or np.uint8, copy=False)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for block in blocks(self):
            yield from block

    def take(self, rows: Rows) -> Mapped:
        """Return the set of the given rows, in the given order; nothing is read."""
        return Mapped(self._file, self._rows[rows])

    def followed_by(self, other: Mapped) -> Mapped:
        """Return the rows of both, which are of the same file."""
        if other._file is not self._file:
            raise ValueError("the two sets are of different files")
        return Mapped(self._file, np.concatenate([self._rows, other._rows]))

    def expect(self, rows: Rows) -> None:
        """Let the system read images ahead that will be asked for soon."""
        size = int(np.prod(self._file.shape[1:]))
        offset = self._file.offset - self._start
        for row in np.sort(self._rows[rows]).tolist():
            begin = (offset + row * size) // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, begin, offset + (row + 1) * size - begin)

    def _give_back(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @property
    def _map(self) -> mmap.mmap:
        held: mmap.mmap = self._file._mmap  # type: ignore[attr-defined]
        return held

    @property
    def _start(self) -> int:
        """Offset in the file at which the map begins: numpy rounds it down to whole pages."""
        return self._file.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY


Images = NDArray[np.uint8] | Mapped
"""``uint8 [N, C, H, W]``, in memory or not."""


def taken(images: Images, rows: Rows) -> Images:
    """Return the images of the given rows, in the given order; of a mapped set nothing is read."""
    return images.take(rows) if isinstance(images, Mapped) else images[rows]


def write_array(images: Images, file: BinaryIO) -> None:
    """Write images as ``np.save`` does."""
    if not isinstance(images, Mapped):
        np.save(file, images, allow_pickle=False)
        return
    header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.writelines(block.data for block in blocks(images))


def blocks(images: Images) -> Iterator[NDArray[np.uint8]]:
    """Images in order, some ``[n, C, H, W]`` at a time; together they are all of them."""
    size = int(np.prod(images.shape[1:]))
    step = max(1, BLOCK // max(1, size))
    return (np.ascontiguousarray(images[start : start + step]) for start in range(0, len(images), step))
