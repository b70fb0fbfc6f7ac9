"""What holds for every source that reads images, one by one or all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.datasets import SOURCES
from tasks.samples.pictures import fingerprints_of
from tests.datasets.building import colour, encoded, reading, write_folders, write_hub_file


@pytest.mark.parametrize("source", ["digits", "image_folder", "parquet"])
def test_the_fingerprints_of_pictures_do_not_depend_on_resize(source: str, tmp_path: Path) -> None:
    write_folders(tmp_path)
    for part in ("train", "test"):
        images = [encoded(colour(seed)) for seed in range(4)]
        write_hub_file(tmp_path / f"{part}-00000-of-00001.parquet", images, [0, 1, 0, 1])
    load = SOURCES.get(source)
    native, scaled = load(tmp_path, reading()), load(tmp_path, reading(16))
    assert np.array_equal(native.pictures, fingerprints_of(np.asarray(native.images)))
    assert np.array_equal(native.pictures, scaled.pictures)
    assert scaled.images.shape[2:] == (16, 16) != native.images.shape[2:]


def test_a_subset_takes_its_fingerprints_along() -> None:
    of = SOURCES.get("digits")(Path(), reading())
    rows = np.array([7, 3, 1000])
    assert np.array_equal(of.subset(rows).pictures, of.pictures[rows])
