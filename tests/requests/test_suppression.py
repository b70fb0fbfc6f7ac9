from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ExpungeError
from tasks.requests.keys import KeyStore
from tasks.requests.suppression import KEY, Erased, lines_for

IDS = [f"train/{row}.png" for row in range(6)]
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
PATH = Path("erased.txt")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    monkeypatch.chdir(tmp_path)
    return KeyStore(tmp_path / "keys", tmp_path / "project")


def erase(keys: KeyStore, *rows: int, images: np.ndarray = IMAGES) -> Erased:
    key = keys.load(KEY) if keys.exists(KEY) else keys.create(KEY)
    before = Erased.read(PATH) if PATH.exists() else Erased(())
    after = before.having(lines_for(rows, IDS, images, key))
    after.write(PATH)
    return Erased.read(PATH)


def test_what_the_list_names_is_left_out(keys: KeyStore) -> None:
    erased = erase(keys, 1, 4)
    assert erased.kept(IDS, IMAGES, keys).tolist() == [0, 2, 3, 5]


def test_a_sample_that_comes_back_under_another_name_is_left_out(keys: KeyStore) -> None:
    erased = erase(keys, 1)
    renamed = [f"new/{row}.png" for row in range(6)]
    assert erased.kept(renamed, IMAGES, keys).tolist() == [0, 2, 3, 4, 5]


def test_a_sample_that_comes_back_with_other_pixels_is_left_out(keys: KeyStore) -> None:
    assert erase(keys, 1).kept(IDS, 255 - IMAGES, keys).tolist() == [0, 2, 3, 4, 5]


def test_a_twin_that_nobody_asked_for_stays(keys: KeyStore) -> None:
    twins = IMAGES.copy()
    twins[2] = twins[1]
    assert erase(keys, 1, images=twins).kept(IDS, twins, keys).tolist() == [0, 2, 3, 4, 5]
    assert erase(keys, 1, 2, images=twins).kept(["x", *IDS[1:]], twins, keys).tolist() == [0, 3, 4, 5]


def test_the_list_grows_and_never_doubles(keys: KeyStore) -> None:
    first = erase(keys, 1)
    assert erase(keys, 1) == first
    both = erase(keys, 4)
    assert both.lines[: len(first.lines)] == first.lines
    assert both.kept(IDS, IMAGES, keys).tolist() == [0, 2, 3, 5]


def test_the_file_tells_no_id(keys: KeyStore) -> None:
    erase(keys, 0, 1, 2)
    text = PATH.read_text()
    assert "train" not in text
    assert len([line for line in text.splitlines() if not line.startswith("#")]) == 6


def test_an_empty_list_needs_no_key_and_any_other_does(keys: KeyStore) -> None:
    assert Erased(()).kept(IDS, IMAGES, keys).tolist() == list(range(6))
    erased = erase(keys, 1)
    keys.destroy(KEY)
    with pytest.raises(ExpungeError, match=r"lacks the key that tells which; copy erased\.key there"):
        erased.kept(IDS, IMAGES, keys)


@pytest.mark.parametrize(
    "line", ["id", "id abc", f"name {'a' * 64}", f"id {'A' * 64}", f" id {'a' * 64}", "é"]
)
def test_a_damaged_list_is_refused_with_the_line(keys: KeyStore, line: str) -> None:
    erase(keys, 1)
    PATH.write_text(PATH.read_text() + line + "\n", encoding="utf-8")
    with pytest.raises(ExpungeError, match=r"erased.txt.* is damaged; restore it: git checkout"):
        Erased.read(PATH)
    PATH.unlink()
    with pytest.raises(ExpungeError, match=r"erased\.txt is missing"):
        Erased.read(PATH)
