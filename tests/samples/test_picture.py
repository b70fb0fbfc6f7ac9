"""A picture has one digest, whatever array it lies in."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tasks.samples.picture import picture_digest

COLOUR = np.random.default_rng(1).integers(0, 256, (3, 5, 4), dtype=np.uint8)


def test_the_digest_is_that_of_size_and_pixels() -> None:
    pixels = COLOUR.transpose(1, 2, 0)
    expected = hashlib.sha256(b"picture\0" + b"(5, 4)" + pixels.tobytes()).hexdigest()
    assert picture_digest(COLOUR) == picture_digest(pixels) == picture_digest(pixels.copy()) == expected


def test_grey_is_three_equal_channels() -> None:
    grey = COLOUR[:1]
    assert len({picture_digest(each) for each in (grey, grey[0], np.repeat(grey, 3, axis=0))}) == 1


def test_another_picture_or_size_has_another_digest() -> None:
    assert picture_digest(COLOUR) != picture_digest(COLOUR ^ 1)
    assert picture_digest(np.zeros((3, 2, 6), np.uint8)) != picture_digest(np.zeros((3, 6, 2), np.uint8))


@pytest.mark.parametrize("bad", [np.zeros((3, 2, 2)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is no picture"):
        picture_digest(bad)
