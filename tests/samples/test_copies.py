from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.datasets import SOURCES
from tasks.samples.copies import find_copies, write_copies
from tasks.samples.table import COPIES, read_copies
from tests.datasets.building import reading

EMBEDDED = Path(__file__).parents[2] / "data/fashion-mnist-10k"
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def clothes() -> Pixels:
    return np.asarray(SOURCES.get("parquet")(EMBEDDED, reading()).images)


def saved_again(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[None]


def test_equal_pictures_are_grouped_and_no_other(clothes: Pixels) -> None:
    images = clothes[[0, 1, 0, 2, 1, 0, 3]]
    assert find_copies(images) == ([1, 2, 1, 0, 2, 1, 0],) * 2


def test_different_pictures_of_the_embedded_sample_are_not_taken_for_copies(clothes: Pixels) -> None:
    same, alike = find_copies(clothes)
    assert not any(same)
    (first, second) = ([row for row, group in enumerate(alike) if group == number] for number in (1, 2))
    assert (first, second, max(alike)) == ([1041, 6297], [2659, 4688], 2)  # as a look at them confirms


@pytest.mark.parametrize("quality", [85, 95])
def test_pictures_that_were_saved_again_are_found_among_ten_thousand(clothes: Pixels, quality: int) -> None:
    chosen = range(0, 10_000, 100)
    again = np.stack([saved_again(clothes[row], quality) for row in chosen])
    same, alike = find_copies(np.concatenate([clothes, again]))
    assert not any(same)
    found = [alike[row] == alike[10_000 + number] != 0 for number, row in enumerate(chosen)]
    assert sum(found) >= 99


def test_nearly_blank_pictures_are_no_copies_of_each_other() -> None:
    random = np.random.default_rng(0)
    images = random.integers(120, 124, (50, 1, 28, 28), dtype=np.uint8)
    assert find_copies(images) == ([0] * 50,) * 2


def test_one_picture_ten_thousand_times_is_one_group() -> None:
    images = np.zeros((10_000, 1, 8, 8), dtype=np.uint8)
    assert find_copies(images) == ([1] * 10_000,) * 2


def test_what_is_written_is_read_again_and_names_only_who_has_copies(clothes: Pixels, tmp_path: Path) -> None:
    images = np.concatenate([clothes[[0, 1, 2]], saved_again(clothes[1], 95)[None], clothes[[2]]])
    write_copies(["a", 'b,"', "c", "d", "e"], *find_copies(images), tmp_path)
    assert read_copies(tmp_path / COPIES) == {'b,"': (0, 1), "c": (1, 2), "d": (0, 1), "e": (1, 2)}


@pytest.mark.parametrize(
    ("row", "message"),
    [("a,1", "line 2: 2 columns"), ("a,-1,1", "line 2: .* no numbers"), ("a,,1", "line 2: .* no numbers")],
)
def test_damage_is_named_by_line(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / COPIES).write_text(f"sample_id,same,alike\n{row}\n")
    with pytest.raises(ExpungeError, match=message):
        read_copies(tmp_path / COPIES)
