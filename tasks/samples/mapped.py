"""Images that lie in files because they would be too many for the memory.

A :class:`Mapped` is read by rows, like an array, and never as a whole: what was read is given back to the
system at once, so the memory that a process takes does not grow with the set.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol, cast, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 2**29
"""Bytes of images up to which a set is held in memory."""

BLOCK = 2**24
"""Bytes that are read at once."""

HELD = 16
"""Images between whose reading memory is given back: the system maps up to 2 MiB around each."""

Rows = NDArray[np.int64]


class File(Protocol):
    """Images of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(M, C, H, W)``."""
        ...

    def __len__(self) -> int: ...
    def read(self, places: Rows) -> NDArray[np.uint8]:
        """Copy images, ``uint8 [n, C, H, W]``."""
        ...

    def expect(self, places: Rows) -> None:
        """Let the system read images ahead."""
        ...

    def give_back(self) -> None:
        """Give the memory back that was read into."""
        ...


@runtime_checkable
class Packed(Protocol):
    """A file whose images are encoded each for itself."""

    def packed(self, place: int) -> bytes:
        """Return an image as it is encoded."""
        ...


class Pixels:
    """The pixels of images in a memory-mapped file, ``uint8 [M, C, H, W]``."""

    def __init__(self, content: np.memmap[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        self.content = content

    @property
    def shape(self) -> tuple[int, ...]:
        """``(M, C, H, W)``."""
        return self.content.shape

    def __len__(self) -> int:
        return len(self.content)

    def read(self, places: Rows) -> NDArray[np.uint8]:
        """Copy images, ``uint8 [n, C, H, W]``."""
        found: NDArray[np.uint8] = np.asarray(self.content)[places]
        return found

    def expect(self, places: Rows) -> None:
        """Let the system read images ahead."""
        size = int(np.prod(self.shape[1:]))
        for place in places.tolist():
            read_ahead(self.content, place * size, size)

    def give_back(self) -> None:
        """Give the memory back that was read into."""
        give_back(self.content)


def read_ahead(content: np.memmap[Any, Any], begin: int, size: int) -> None:
    """Let the system read bytes of a mapped array that will be asked for soon."""
    held: mmap.mmap = content._mmap  # type: ignore[attr-defined]
    start = content.offset % mmap.ALLOCATIONGRANULARITY + begin  # numpy maps from whole pages on
    page = start // mmap.PAGESIZE * mmap.PAGESIZE
    held.madvise(mmap.MADV_WILLNEED, page, start + size - page)


def give_back(content: np.memmap[Any, Any]) -> None:
    """Give the memory back into which a mapped array was read."""
    held: mmap.mmap = content._mmap  # type: ignore[attr-defined]
    if hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)


class Mapped:
    """Images ``uint8 [N, C, H, W]`` in memory-mapped files.

    Parameters
    ----------
    files
        All but the last hold the same number of images.
    rows
        ``int64 [N]``, which of them, counted through all files, in which order; None for all.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[File], rows: Rows | None = None) -> None:
        self._files = files
        self._rows: Rows = np.arange(sum(map(len, files))) if rows is None else rows

    @classmethod
    def of_bytes(cls, file: BinaryIO, count: int, shape: tuple[int, ...]) -> Mapped:
        """Read a file that holds the pixels of ``count`` images of ``shape`` and nothing else."""
        return cls([Pixels(np.memmap(file, np.uint8, "r", shape=(count, *shape)))])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return (len(self._rows), *self._files[0].shape[1:])

    @overload
    def __getitem__(self, key: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.uint8]: ...
    def __getitem__(self, key: int | slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Copy images: one ``[C, H, W]`` by its row, or several ``[n, C, H, W]``."""
        rows = np.atleast_1d(self._rows[key])
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for start in range(0, len(rows), HELD):
            numbers, places = self._placed(rows[start : start + HELD])
            for number in np.unique(numbers).tolist():
                here = numbers == number
                found[start : start + HELD][here] = self._files[number].read(places[here])
                self._files[number].give_back()
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
        return Mapped(self._files, self._rows[rows])

    def followed_by(self, other: Mapped) -> Mapped:
        """Return the rows of both, which are of the same files."""
        if other._files is not self._files:
            raise ValueError("the two sets are of different files")
        return Mapped(self._files, np.concatenate([self._rows, other._rows]))

    def expect(self, rows: Rows) -> None:
        """Let the system read images ahead that will be asked for soon."""
        numbers, places = self._placed(np.sort(self._rows[rows]))
        for number in np.unique(numbers).tolist():
            self._files[number].expect(places[numbers == number])

    def packed(self) -> Iterator[bytes] | None:
        """Return the images as their files encode them, in order; None if they lie there as pixels."""
        if not all(isinstance(file, Packed) for file in self._files):
            return None
        step = max(1, len(self._files[0]))
        files = cast("Sequence[Packed]", self._files)
        return (files[row // step].packed(row % step) for row in self._rows.tolist())

    def _placed(self, rows: Rows) -> tuple[Rows, Rows]:
        """In which file each row is, and in which place there."""
        return np.divmod(rows, max(1, len(self._files[0])))


Images = NDArray[np.uint8] | Mapped
"""``uint8 [N, C, H, W]``, in memory or not."""


def taken(images: Images, rows: Rows) -> Images:
    """Return the images of the given rows, in the given order; of a mapped set nothing is read."""
    return images.take(rows) if isinstance(images, Mapped) else images[rows]


def blocks(images: Images) -> Iterator[NDArray[np.uint8]]:
    """Images in order, some ``[n, C, H, W]`` at a time; together they are all of them."""
    size = int(np.prod(images.shape[1:]))
    step = max(1, BLOCK // max(1, size))
    return (np.ascontiguousarray(images[start : start + step]) for start in range(0, len(images), step))
