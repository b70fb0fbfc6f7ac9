from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.samples.check import check, is_plain
from tasks.samples.image_set import ImageSet
from tests.datasets.building import image_set


def sound() -> ImageSet:
    return image_set([3, 4], [1, 2])


def with_id(sample_id: str) -> dict[str, Any]:
    return {"sample_ids": (sample_id, *sound().sample_ids[1:])}


def test_a_sound_set_passes_unchanged() -> None:
    given = sound()
    assert check(given, "here") is given


def test_a_test_part_may_lack_a_class() -> None:
    check(image_set([3, 4], [2, 0]), "here")


@pytest.mark.parametrize("sample_id", ["train/a,b.png", 'a "quoted" one', "naïve/猫 1.png", " leading"])
def test_ids_may_hold_commas_quotes_blanks_and_any_script(sample_id: str) -> None:
    check(replace(sound(), **with_id(sample_id)), "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_id("a\nb"), r"sample id 'a\\nb' is empty or holds control characters"),
        (with_id("a\u2028b"), r"sample id 'a\\u2028b' is empty or holds"),
        (with_id("a\udcffb"), r"sample id 'a\\udcffb' is empty or holds"),
        (with_id(""), "sample id '' is empty"),
        (with_id("train/0/1"), "sample id 'train/0/1' stands for 2 different ones"),
        ({"classes": ("one", "one")}, "class name 'one' stands for 2"),
        ({"classes": ("one", "")}, "class name '' is empty"),
        ({"classes": ("one",)}, r"1 class \(one\); a classifier needs at least 2"),
        ({"classes": ("one", "two", "three")}, r"class 2 \(three\) has no training images"),
        (
            {"labels": np.array([0, 0, 0, 1, 1, 1, 2, 0, 1, 1])},
            "label 2 of source of train/1/3; classes are 0 to 1",
        ),
        ({"labels": np.array([-1, 0, 0, 1, 1, 1, 1, 0, 1, 1])}, "label -1 of source of train/0/0"),
        ({"is_test": np.ones(10, dtype=np.bool_)}, "no training images"),
        ({"sources": ("a",)}, "10 images, but .* labels, ids, sources, test and val marks, and subjects"),
        ({"images": np.zeros((10, 2, 4, 4), dtype=np.uint8)}, r"images are uint8 \[10, 2, 4, 4\]"),
        ({"images": np.zeros((10, 1, 4, 4))}, "images are float64"),
        (
            {"pictures": np.zeros((9, 32), dtype=np.uint8)},
            r"pictures are uint8 \[9, 32\]; uint8 \[10, 32\] is right",
        ),
        ({"pictures": np.zeros((10, 32))}, r"pictures are float64 \[10, 32\]"),
    ],
)
def test_an_unsound_set_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpungeError, match=f"^here: {message}"):
        check(replace(sound(), **change), "here")


def test_an_empty_set_is_refused() -> None:
    empty = ImageSet(
        images=np.zeros((0, 1, 2, 2), dtype=np.uint8),
        labels=np.zeros(0, dtype=np.int64),
        sample_ids=(),
        sources=(),
        is_test=np.zeros(0, dtype=np.bool_),
        classes=("one", "two"),
        pictures=np.zeros((0, 32), dtype=np.uint8),
    )
    with pytest.raises(ExpungeError, match="no training images"):
        check(empty, "here")


@pytest.mark.parametrize("text", ["a\x00", "a\r", "\x1b[31m", "\x7f", "\x85", "\u2029", "\ud800", ""])
def test_control_characters_and_surrogates_are_not_plain(text: str) -> None:
    assert not is_plain(text)


@pytest.mark.parametrize("text", ["a b", "猫", "Screenshot 9.00\u202fPM.png", "e\u0301"])
def test_names_that_people_give_files_are_plain(text: str) -> None:
    assert is_plain(text)
