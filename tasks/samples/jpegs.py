"""Images that lie as JPEG, for sets whose pixels would be too many for the disk.

Every image is decoded and scaled once, and encoded once, without subsampling of its colours; what any stage
sees of it is that JPEG decoded. In a shard it lies in a zip file, uncompressed, whose directory is the index.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import RESTORE, ExpungeError
from tasks.samples.mapped import Rows, give_back, read_ahead

QUALITY = 95
"""Of 100: above it, files grow and hardly anything of the picture is gained (Pillow's documentation)."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that the same images are the same bytes."""

LENGTHS = 26
"""Where the header of a member has the lengths of its name and of what comes behind that, 2 bytes each."""

HEADER = 30
"""Bytes of that header."""


class Jpeg(NamedTuple):
    """An encoded image, and ``(C, H, W)`` of its pixels."""

    content: bytes
    shape: tuple[int, int, int]


def encode(image: NDArray[np.uint8]) -> Jpeg:
    """Encode ``uint8 [C, H, W]``, grey or RGB."""
    channels, height, width = image.shape
    file = io.BytesIO()
    pixels = image[0] if channels == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return Jpeg(file.getvalue(), (channels, height, width))


class Jpegs:
    """JPEG images in one file, ``uint8 [M, C, H, W]`` once decoded; a grey one fills all channels.

    Parameters
    ----------
    path
        For messages.
    content
        The file, ``uint8``.
    begins, sizes
        ``int64 [M]``, where each image lies in it; one of size 0 is no image, and reads as zeros.
    shape
        ``(M, C, H, W)``.
    """

    def __init__(
        self,
        path: Path,
        content: np.memmap[tuple[int], np.dtype[np.uint8]],
        begins: Rows,
        sizes: Rows,
        shape: tuple[int, ...],
    ) -> None:
        self.path, self.shape = path, shape
        self._content, self._begins, self._sizes = content, begins, sizes

    @classmethod
    def of_bytes(cls, file: BinaryIO, sizes: Sequence[int], shape: tuple[int, ...]) -> Jpegs:
        """Read a file without a name that holds images of ``shape`` one after the other."""
        ends = np.cumsum(sizes, dtype=np.int64)
        content = np.memmap(file, np.uint8, "r", shape=(int(ends[-1]),))
        return cls(Path("images"), content, ends - sizes, np.array(sizes), (len(sizes), *shape))

    @classmethod
    def of_zip(cls, path: Path) -> Jpegs:
        """Read a file as :func:`zipped` makes it.

        Raises
        ------
        OSError, ValueError, zipfile.BadZipFile
            If it is none.
        """
        content = np.memmap(path, np.uint8, "r")
        with zipfile.ZipFile(path) as file:
            shape = tuple(map(int, json.loads(file.comment)["shape"]))
            if len(shape) != 4:
                raise ValueError("no shape of a set")
            begins, sizes = np.zeros(shape[0], dtype=np.int64), np.zeros(shape[0], dtype=np.int64)
            for member in file.infolist():
                place, header = int(member.filename.partition(".")[0]), member.header_offset
                lengths = content[header + LENGTHS : header + HEADER].view("<u2")
                begins[place], sizes[place] = header + HEADER + int(lengths.sum()), member.file_size
        if np.any(begins + sizes > len(content)):
            raise ValueError("an image ends behind the file")
        return cls(path, content, begins, sizes, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def packed(self, place: int) -> bytes:
        """Return an image as it is encoded; empty if there is none."""
        begin = self._begins[place]
        return bytes(self._content[begin : begin + self._sizes[place]])

    def read(self, places: Rows) -> NDArray[np.uint8]:
        """Decode images, ``uint8 [n, C, H, W]``.

        Raises
        ------
        ExpungeError
            If one is damaged.
        """
        found = np.zeros((len(places), *self.shape[1:]), dtype=np.uint8)
        for into, place in zip(found, places.tolist(), strict=True):
            if content := self.packed(place):
                try:
                    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                        pixels = np.asarray(image)
                    into[:] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
                except (OSError, ValueError, SyntaxError) as error:
                    raise ExpungeError(
                        f"{self.path}: image {place} is damaged ({error}); {RESTORE}"
                    ) from None
        return found

    def expect(self, places: Rows) -> None:
        """Let the system read images ahead."""
        for begin, size in zip(self._begins[places].tolist(), self._sizes[places].tolist(), strict=True):
            read_ahead(self._content, begin, size)

    def give_back(self) -> None:
        """Give the memory back that was read into."""
        give_back(self._content)


def zipped(images: Sequence[bytes], shape: tuple[int, ...]) -> bytes:
    """Return the file of a shard; an empty image is none.

    Parameters
    ----------
    images
        M JPEG files.
    shape
        ``(C, H, W)`` of their pixels.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for place, content in enumerate(images):
            if content:
                archive.writestr(zipfile.ZipInfo(f"{place:06}.jpg", EPOCH), content)
        archive.comment = json.dumps({"shape": [len(images), *shape]}).encode()
    return file.getvalue()
