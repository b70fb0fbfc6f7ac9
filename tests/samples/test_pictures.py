from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.samples.pictures import (
    NAME,
    fingerprint_of_picture,
    fingerprints_of,
    read_pictures,
    write_pictures,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)


def test_the_form_of_the_array_does_not_matter() -> None:
    grey = IMAGES[:, :1]
    expected = [fingerprint_of_picture(image[0]) for image in grey]
    for images in (grey, np.repeat(grey, 3, axis=1), np.asfortranarray(grey)):
        assert [row.tobytes() for row in fingerprints_of(images)] == expected
    assert len(set(expected)) == 5


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_pictures(fingerprints_of(IMAGES), tmp_path)
    assert np.array_equal(read_pictures(tmp_path, 5), fingerprints_of(IMAGES))


def test_a_missing_or_damaged_file_and_one_of_another_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match=r"pictures\.npy is missing; run the stage that writes it"):
        read_pictures(tmp_path, 5)
    write_pictures(fingerprints_of(IMAGES), tmp_path)
    with pytest.raises(ExpungeError, match=r"holds uint8 \[5, 32\], not uint8 \[6, 32\]; restore it"):
        read_pictures(tmp_path, 6)
    whole = (tmp_path / NAME).read_bytes()
    for content in (b"", whole[:-1], whole[10:]):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(ExpungeError, match="is damaged"):
            read_pictures(tmp_path, 5)
