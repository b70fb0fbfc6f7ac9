"""Images in an array: channels first or last, grey or colour, flattened, as integers or as floats.

The digests that identify an image are those of :func:`tasks.requests.suppression.fingerprint`, which knows
the layout ``[C, H, W]`` only, and of :func:`tasks.samples.pictures.fingerprint_of_picture`, made here for
many images at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Scan

CHUNK = 1 << 24
"""Bytes of images that are looked at together."""

SMALLEST = 4
"""Side in pixels below which an array without known sizes is not taken for images: kernels are 3 × 3."""

Images = NDArray[np.uint8]
Rows = Callable[[int, int], NDArray[Any]]
"""Rows ``start`` to ``stop`` of an array."""


def search_array(values: NDArray[Any], scan: Scan) -> bool:
    """Look for images in an array that is in memory; whether one was met."""
    return search_rows(values.shape, values.dtype, lambda start, stop: values[start:stop], scan)


def search_rows(shape: tuple[int, ...], dtype: np.dtype[Any], rows: Rows, scan: Scan) -> bool:
    """Look for images in an array of which some rows are read at a time; whether one was met.

    Parameters
    ----------
    shape, dtype
        Of the array.
    rows
        Reads some; fewer than asked for where the array was cut short.
    """
    if not scan.by_image or dtype.kind not in "uif" or math.prod(shape) == 0:
        return False
    if not _likely(shape, scan) and not _likely((1, *shape), scan):
        return False
    met, strange = False, False
    step = max(1, CHUNK // (math.prod(shape[1:]) * max(1, dtype.itemsize)))
    for start in range(0, shape[0], step):
        chunk = rows(start, min(start + step, shape[0]))
        if not len(chunk):
            break
        for images in _layouts(chunk, scan):
            some, unknown = _as_bytes(images)
            strange |= unknown and min(_size(images)) >= 8
            met |= _search(some, scan)
    if len(shape) < 4 and _likely((1, *shape), scan):  # the array may be one image
        met |= _one(shape, rows, scan)
    if strange and not met:
        scan.unread[Unread.FLOATS] += 1
    return met


def _one(shape: tuple[int, ...], rows: Rows, scan: Scan) -> bool:
    if math.prod(shape) > CHUNK:
        return False
    whole = rows(0, shape[0])[None]
    if whole.shape[1:] != shape:
        return False
    met = False
    for images in _layouts(whole, scan):
        met |= _search(_as_bytes(images)[0], scan)
    return met


def _likely(shape: tuple[int, ...], scan: Scan) -> bool:
    return next(_shapes(shape, scan), None) is not None


def _shapes(shape: tuple[int, ...], scan: Scan) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Ways to read the rows of an array as images: the layout, and ``(C, H, W)``."""
    match shape[1:]:
        case (channels, height, width) if channels in (1, 3, 4) and _fits(height, width, scan):
            yield "CHW", (channels, height, width)
        case _:
            pass
    match shape[1:]:
        case (height, width, channels) if channels in (1, 3, 4) and _fits(height, width, scan):
            yield "HWC", (channels, height, width)
        case (height, width) if _fits(height, width, scan):
            yield "CHW", (1, height, width)
        case (length,):
            for channels, height, width in _unflattened(length, scan):
                yield "CHW", (channels, height, width)
                if channels > 1:
                    yield "HWC", (channels, height, width)


def _fits(height: int, width: int, scan: Scan) -> bool:
    if scan.sought.sizes is None:
        return min(height, width) >= SMALLEST
    return scan.sought.of_size(height, width)


def _unflattened(length: int, scan: Scan) -> Iterator[tuple[int, int, int]]:
    for channels in (1, 3):
        pixels, rest = divmod(length, channels)
        side = math.isqrt(pixels)
        sizes = scan.sought.sizes or {(side, side)}
        if not rest:
            yield from (
                (channels, *size) for size in sizes if math.prod(size) == pixels and _fits(*size, scan)
            )


def _layouts(chunk: NDArray[Any], scan: Scan) -> Iterator[NDArray[Any]]:
    """Yield a chunk as ``[N, C, H, W]``, once for each way to read it."""
    for layout, (channels, height, width) in _shapes(chunk.shape, scan):
        if layout == "CHW":
            images = chunk.reshape(len(chunk), channels, height, width)
        else:
            images = chunk.reshape(len(chunk), height, width, channels).transpose(0, 3, 1, 2)
        yield images[:, :3] if channels == 4 else images


def _size(images: NDArray[Any]) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _as_bytes(images: NDArray[Any]) -> tuple[Images, bool]:
    """Return the images whose values can be told, as ``uint8``, and whether there were others, as floats."""
    if images.dtype == np.uint8:
        return images, False
    axes = (1, 2, 3)
    with np.errstate(all="ignore"):
        low, high = images.min(axis=axes), images.max(axis=axes)
        if images.dtype.kind in "ui":
            plain = (low >= 0) & (high <= 255)
            return images[plain].astype(np.uint8), False
        images = images if images.dtype.itemsize >= 4 else images.astype(np.float32)
        unit, full = (low >= 0) & (high <= 1), (low >= 0) & (high > 1) & (high <= 255)
        signed = (low >= -1) & (low < 0) & (high <= 1)
        parts = [
            np.rint(images[unit] * 255), np.rint(images[full]), np.rint((images[signed] + 1) * 127.5),
        ]  # fmt: skip
    return np.concatenate(parts).astype(np.uint8), not bool((unit | full).all())


def _search(images: Images, scan: Scan) -> bool:
    """Look fingerprints and digests of pictures up, of ``[N, C, H, W]``."""
    if not len(images):
        return False
    pixels = set(_fingerprints(images)) if scan.by_pixels else set()
    if scan.by_pixels and images.shape[1] == 1:
        pixels |= set(_fingerprints(np.repeat(images, 3, axis=1)))  # as among images in colour
    elif scan.by_pixels:
        grey = (images[:, 0] == images[:, 1]).all(axis=(1, 2)) & (images[:, 0] == images[:, 2]).all(
            axis=(1, 2)
        )
        pixels |= set(_fingerprints(images[grey][:, :1]))
    return scan.image(pixels, set(_pictures(images)) if scan.by_picture else set())


def search_image(image: Images, scan: Scan) -> bool:
    """Look for one image, ``uint8 [H, W]`` or ``[H, W, 3]``."""
    size = image.shape[:2]
    if image.ndim == 3 and np.array_equal(image[:1, :, 0], image[:1, :, 1]):
        return _search(image.transpose(2, 0, 1)[None], scan)
    if image.ndim == 2:
        return _search(image[None, None], scan)
    pixels, pictures = set(), set()
    if scan.by_pixels:
        data = repr((3, *size)).encode() + image.transpose(2, 0, 1).tobytes()
        pixels.add(hashlib.sha256(data).hexdigest().encode())
    if scan.by_picture:
        data = repr((*size, 3)).encode() + image.tobytes()
        pictures.add(hashlib.sha256(data).hexdigest().encode())
    return scan.image(pixels, pictures)


def _fingerprints(images: Images) -> Iterator[bytes]:
    return _digests(images, repr(images.shape[1:]).encode())


def _pictures(images: Images) -> Iterator[bytes]:
    colour = np.broadcast_to(images, (len(images), 3, *images.shape[2:])).transpose(0, 2, 3, 1)
    return _digests(colour, repr((*_size(images), 3)).encode())


def _digests(images: Images, start: bytes) -> Iterator[bytes]:
    if not len(images):
        return
    before = hashlib.sha256(start)
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    for row in rows:
        state = before.copy()
        state.update(row.data)
        yield state.hexdigest().encode()
