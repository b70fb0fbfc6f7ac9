"""From the bytes of image files to one set of pixels, with every unusable file named."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tasks.core.errors import ExpungeError
from tasks.datasets._reading.sink import Sink
from tasks.datasets._reading.still import Decoding, UnusableImageError, decode, fitted
from tasks.samples.jpegs import Jpeg, encode
from tasks.samples.mapped import Images
from tasks.samples.pictures import SIZE

SHOWN = 20
"""How many unusable files a message names."""

FILES, BYTES = 128, 2**21
"""An errand is full with so many images, or so many encoded bytes."""

HELD = 2**26
"""Bytes of decoded images that may wait for one that comes before them."""

WORTH = 2.0
"""Seconds of work that are left from which further processes pay: to start one takes half a second."""

Encoded = bytes | str
"""The content of an image file, or its path: a text, for objects cost too much where files are many."""

Decoded = tuple[NDArray[np.uint8] | Jpeg, bytes] | str
"""Pixels ``[C, H, W]``, or a JPEG file of them, and the picture's fingerprint, or why it is unusable."""


class Decoder:
    """Collects images, in the order in which they come, and reports all unusable ones at once.

    The set is grey as long as every image is; the first colour image widens it. Its size is that of the
    first image. Where there is much to do, processes side by side decode.

    Parameters
    ----------
    count
        Number of images to come, N.
    how
        Size and other settings; without a size all images must have the same.
    where
        The source, for messages.
    """

    def __init__(self, count: int, how: Decoding, where: Path) -> None:
        self._count, self._how, self._where = count, how, where
        self._sink: Sink | None = None
        self._pictures = np.empty((0, SIZE), dtype=np.uint8)
        self._done = 0
        self._unusable: list[str] = []
        self._first = ""
        self._other_size: str | None = None
        self._errand: list[tuple[str, Encoded]] = []
        self._size = 0
        self._workers = _Workers(how)
        self._bar = tqdm(total=count, desc="decode", unit="image", delay=2, leave=False, disable=None)

    def add(self, image: Encoded, name: str) -> None:
        """Decode the next image, given as its bytes or its file; ``name`` is how messages call it."""
        self._errand.append((name, image))
        self._size += len(image) if isinstance(image, bytes) else _size_of(image)
        if len(self._errand) >= FILES or self._size >= BYTES:
            self._send()

    def refuse(self, name: str, reason: str) -> None:
        """Count a file as unusable without decoding it."""
        self._unusable.append(f"{name if name.isprintable() else ascii(name)} ({reason})")

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """Fingerprints ``uint8 [N, 32]`` of the images as they were before they were scaled."""
        self._complete()
        return self._pictures[: self._done]

    def finish(self, count: int | None = None) -> Images:
        """Return the images, ``uint8 [N, C, H, W]``; in a file where they would be too many for the memory.

        Parameters
        ----------
        count
            N, if fewer came than were announced.

        Raises
        ------
        ExpungeError
            If a file was unusable (the first of them are named), or if sizes differ.
        """
        self._complete()
        if self._unusable:
            named = "; ".join(self._unusable[:SHOWN])
            more = f"; and {len(self._unusable) - SHOWN} more" if len(self._unusable) > SHOWN else ""
            raise ExpungeError(f"{self._where}: {len(self._unusable)} unusable file(s): {named}{more}")
        if self._other_size:
            raise ExpungeError(
                f"{self._where}: {self._first}, but {self._other_size}; "
                "set split.resize to the side in pixels that all are to have"
            )
        count = self._count if count is None else count
        if self._sink is None or self._done != count:
            raise ExpungeError(f"{self._where}: {self._done} images where {count} were announced")
        return self._sink.finish(count)

    def _complete(self) -> None:
        self._send()
        self._take(self._workers.rest())
        self._bar.close()

    def _send(self) -> None:
        errand, self._errand, self._size = self._errand, [], 0
        if errand:
            self._take(self._workers.do(errand, left=self._count - self._done))

    def _take(self, results: Iterator[tuple[str, Decoded]]) -> None:
        for name, decoded in results:
            if isinstance(decoded, str):
                self.refuse(name, decoded)
            else:
                self._store(*decoded, name)
            self._bar.update()

    def _store(self, image: NDArray[np.uint8] | Jpeg, picture: bytes, name: str) -> None:
        channels, height, width = image.shape
        if self._sink is None:
            self._sink = Sink.of(self._count, image.shape, self._where, as_jpeg=self._how.as_jpeg)
            self._pictures = np.empty((self._count, SIZE), dtype=np.uint8)
            self._first = f"{name} is {width}×{height}"
        if (height, width) != self._sink.shape[1:]:
            self._other_size = self._other_size or f"{name} is {width}×{height}"
            return
        if channels > self._sink.shape[0]:
            self._sink = self._sink.widened(self._done, channels)
        self._sink.put(self._done, image)
        self._pictures[self._done] = np.frombuffer(picture, dtype=np.uint8)
        self._done += 1


class _Workers:
    """Does errands, results in order: here at first, by further processes once that is worth their start.

    Where these have enough to do, and while they start, errands are done here as well.
    """

    def __init__(self, how: Decoding) -> None:
        self._how = how
        self._pool: ProcessPoolExecutor | None = None
        self._running: deque[Future[list[tuple[str, Decoded]]]] = deque()
        self._waiting, self._largest = 0, 1
        self._cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def do(self, errand: Sequence[tuple[str, Encoded]], left: int) -> Iterator[tuple[str, Decoded]]:
        """Take an errand, of ``left`` images that are to be done; yield what is done by now."""
        if self._pool is None:
            began = time.perf_counter()
            results = _decode_all(errand, self._how)
            expected = (time.perf_counter() - began) / len(errand) * (left - len(errand))
            if expected > WORTH and self._cpus > 1:
                context = multiprocessing.get_context("spawn")  # the process may have threads already
                self._pool = ProcessPoolExecutor(self._cpus - 1, context, _end_with_parent)
            self._largest = max(self._largest, *(_bytes_of(decoded) for _, decoded in results))
            yield from results
            return
        enough = 2 * self._cpus
        self._waiting += len(errand)
        if sum(not future.done() for future in self._running) < enough:
            self._running.append(self._pool.submit(_decode_all, errand, self._how))
        else:
            done: Future[list[tuple[str, Decoded]]] = Future()
            done.set_result(_decode_all(errand, self._how))
            self._running.append(done)
        while self._running and (
            self._running[0].done() or (len(self._running) > enough and self._waiting * self._largest > HELD)
        ):
            yield from self._next()

    def _next(self) -> list[tuple[str, Decoded]]:
        results = self._running.popleft().result()
        self._waiting -= len(results)
        return results

    def rest(self) -> Iterator[tuple[str, Decoded]]:
        """Yield what is not done yet, and end the processes."""
        while self._running:
            yield from self._next()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _decode_all(errand: Sequence[tuple[str, Encoded]], how: Decoding) -> list[tuple[str, Decoded]]:
    allowed, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit is ours: max_megapixels
    try:
        with warnings.catch_warnings(action="ignore"):
            return [(name, _decode_one(image, how)) for name, image in errand]
    finally:
        Image.MAX_IMAGE_PIXELS = allowed


def _decode_one(image: Encoded, how: Decoding) -> Decoded:
    try:
        pixels, picture = decode(io.BytesIO(image if isinstance(image, bytes) else _content(image)), how)
        return encode(pixels) if how.as_jpeg else pixels, picture
    except UnusableImageError as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)


def _bytes_of(decoded: Decoded) -> int:
    if isinstance(decoded, str):
        return 1
    image, _ = decoded
    return image.nbytes if isinstance(image, np.ndarray) else len(image.content)


def _content(file: str) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123  (see Encoded)
        return opened.read()


def _end_with_parent() -> None:
    """Let a process of the pool end when the one that started it is killed; it would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _size_of(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116  (see Encoded)
    except OSError:  # to decode it will say so
        return 0


def resized(images: NDArray[np.uint8], how: Decoding) -> NDArray[np.uint8]:
    """Scale ``uint8 [N, C, H, W]`` as one picture is scaled that is decoded; no side keeps the size."""
    if how.side is None:
        return images
    scaled = np.empty((*images.shape[:2], how.side, how.side), dtype=np.uint8)
    for planes, into in zip(images, scaled, strict=True):
        for plane, target in zip(planes, into, strict=True):
            target[:] = fitted(Image.fromarray(plane), how.side, how.fit, how.background)
    return scaled
