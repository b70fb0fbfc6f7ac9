"""Photos are known again in whatever file they lie, large ones and those of 16 bits, too."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from tasks.datasets._reading.still import Decoding, decode, whole_fingerprint
from tasks.erasure.found import Found
from tasks.erasure.search import find
from tasks.erasure.sought import Sought
from tests.datasets.building import colour, encoded


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of 5 megapixels."""
    picture = Image.fromarray(colour(5, 12, 16)).resize((2600, 2000), Image.Resampling.BICUBIC)
    return encoded(picture, "JPEG", quality=90)


def known_by(content: bytes, how: Decoding) -> str:
    return decode(io.BytesIO(content), how)[1].hex()


def without_metadata(content: bytes) -> bytes:
    """The same JPEG with a comment more: other bytes, the same pixels."""
    return content[:2] + b"\xff\xfe\x00\x08saved." + content[2:]


@pytest.mark.parametrize("how", [Decoding(), Decoding(64), Decoding(512, "crop")])
def test_a_large_photo_is_found_in_a_jpeg_that_was_saved_without_loss(photo: bytes, how: Decoding) -> None:
    sought = Sought.of_samples([], pictures=[known_by(photo, how)])
    again = without_metadata(photo)
    assert hashlib.sha256(again).digest() != hashlib.sha256(photo).digest()
    assert find(again, sought) == Found(pixels=1, whole=True)
    assert not find(encoded(Image.open(io.BytesIO(photo)).rotate(180), "JPEG"), sought)


def test_a_large_photo_is_found_in_another_format_by_all_its_pixels(photo: bytes) -> None:
    further = whole_fingerprint(photo)
    assert further is not None
    sought = Sought.of_samples([], pictures=[further.hex()])
    again = encoded(Image.open(io.BytesIO(photo)), "PNG", compress_level=1)
    assert find(again, sought) == Found(pixels=1, whole=True)
    assert whole_fingerprint(encoded(colour())) is None
    assert whole_fingerprint(encoded(Image.fromarray(colour()), "JPEG")) is None
    assert whole_fingerprint(photo[:5000]) is None


@pytest.mark.parametrize("highest", [255, 4095, 65535])
def test_a_picture_of_16_bits_is_found_in_another_file_whatever_bits_are_in_use(highest: int) -> None:
    values = np.random.default_rng(1).integers(0, highest, (20, 16)).astype(np.uint16)
    values[0, 0] = highest
    for bits in (highest.bit_length(), 16):
        sought = Sought.of_samples([], pictures=[known_by(encoded(values), Decoding(bits=bits))])
        assert find(encoded(values, "TIFF"), sought) == Found(pixels=1, whole=True)
