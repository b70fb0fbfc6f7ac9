"""CIFAR-10 (Krizhevsky 2009) as torchvision downloads it and checks it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np

from tasks.core.errors import ExpungeError
from tasks.core.params import Split
from tasks.datasets import register
from tasks.datasets._reading.decode import resized
from tasks.datasets._reading.still import Decoding
from tasks.samples.image_set import ImageSet
from tasks.samples.pictures import fingerprints_of

SILENCE = 30.0
"""Seconds without an answer after which the download fails; torchvision would wait for ever."""


@register
def cifar10(path: Path, split: Split) -> ImageSet:
    """Return CIFAR-10, downloaded to ``path`` if it is not there.

    Ids are ``train/00000`` … and ``test/00000`` … by original index.

    Raises
    ------
    ExpungeError
        If the archive cannot be downloaded, or its checksum is wrong.
    """
    from torchvision.datasets import CIFAR10

    try:
        with _timeout(SILENCE):
            train = CIFAR10(root=path, train=True, download=True)
        test = CIFAR10(root=path, train=False)
    # torchvision raises RuntimeError for a wrong checksum, tarfile and zlib OSError or EOFError
    except (OSError, HTTPException, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExpungeError(
            f"CIFAR-10 could not be downloaded to {path} ({reason}); "
            f"without a network, put {CIFAR10.filename} from {CIFAR10.url} there and run again"
        ) from None
    sample_ids = tuple(
        f"{part}/{index:05d}"
        for part, data in (("train", train), ("test", test))
        for index in range(len(data))
    )
    images = np.empty((len(sample_ids), 3, 32, 32), dtype=np.uint8)
    for data, into in ((train.data, images[: len(train)]), (test.data, images[len(train) :])):
        into[:] = data.transpose(0, 3, 1, 2)
    return ImageSet(
        images=resized(images, Decoding.of(split)),
        labels=np.array([*train.targets, *test.targets], dtype=np.int64),
        sample_ids=sample_ids,
        sources=tuple(sample_id.replace("/", "#") for sample_id in sample_ids),
        is_test=np.arange(len(sample_ids)) >= len(train),
        classes=tuple(train.classes),
        pictures=fingerprints_of(images),
        row_counts=(("train", len(train)),),
    )


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
