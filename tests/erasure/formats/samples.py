"""Samples that the tests of the formats hide, and others of the same kind that are kept."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.erasure.search import Sought, Wanted
from tasks.requests.keys import reference
from tasks.requests.suppression import fingerprint
from tasks.samples.pictures import fingerprint_of_picture

NAME, KEPT = "train/cat/0001.png", "train/cat/0002.png"
ODD = 'train/Größe, 1/my "cat".png'
"""A name with blanks, a comma, an umlaut, quotes and a path in it."""

_RANDOM = np.random.default_rng(7)
IMAGES: NDArray[np.uint8] = _RANDOM.integers(0, 256, (12, 3, 8, 6), dtype=np.uint8)
GREYS: NDArray[np.uint8] = _RANDOM.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
KEY = b"k" * 32


def picture_digest(image: NDArray[np.uint8]) -> str:
    """Return the fingerprint of the picture, of ``uint8 [C, H, W]``, in hex."""
    return fingerprint_of_picture(image.transpose(1, 2, 0)).hex()


def encoded(image: NDArray[np.uint8], kind: str = "png", **options: object) -> bytes:
    """Encode ``uint8 [C, H, W]``."""
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def erased(*images: NDArray[np.uint8], names: tuple[str, ...] = (NAME, ODD)) -> Sought:
    """Look for samples that are known in the clear."""
    return Sought.of_samples(
        names,
        [fingerprint(image) for image in images],
        [picture_digest(image) for image in images],
        [hashlib.sha256(encoded(image)).hexdigest() for image in images],
    )


def by_digests(*images: NDArray[np.uint8], names: tuple[str, ...] = (NAME, ODD)) -> Sought:
    """Look for the same, known by the digests of a request."""

    def references(kind: str, values: list[str]) -> frozenset[str]:
        return frozenset(reference(KEY, kind, value) for value in values)

    return Sought.of_requests(
        [
            Wanted(
                KEY,
                references("id", list(names)),
                references("pixels", [fingerprint(image) for image in images]),
                references("file", [hashlib.sha256(encoded(image)).hexdigest() for image in images]),
                pictures=references("picture", [picture_digest(image) for image in images]),
            )
        ]
    )


def saved(path: Path, sought: Sought) -> Sought:
    """Write it, and read it again."""
    sought.save(path)
    return Sought.load(path)


@pytest.fixture(params=["in the clear", "saved", "digests of a request"])
def search(request: pytest.FixtureRequest, tmp_path: Path) -> Sought:
    """Look for two names, image 3 in colour and image 4 in grey, known in one of three ways."""
    if request.param == "digests of a request":
        return by_digests(IMAGES[3], GREYS[4])
    sought = erased(IMAGES[3], GREYS[4])
    return saved(tmp_path / "sought.json", sought) if request.param == "saved" else sought


@pytest.fixture
def others() -> Sought:
    """Look for what is nowhere: an image of the same shape, names that differ in a letter."""
    return erased(
        IMAGES[3] ^ 1, GREYS[4] ^ 1, names=("rain/cat/0001.png", "train/cat/0001.pn", "rain/Größe, 1/my")
    )
