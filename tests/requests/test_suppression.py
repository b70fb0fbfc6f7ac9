from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.requests.high_water import extend
from tasks.requests.keys import LIST_KEY, KeyStore, check_value, reference
from tasks.requests.suppression import Erased, lines_for
from tasks.samples.pictures import fingerprints_of

IDS = [f"train/{row}.png" for row in range(6)]
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
PICTURES = fingerprints_of(IMAGES)
PATH = Path("erased.txt")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    monkeypatch.chdir(tmp_path)
    Erased(()).write(PATH)
    return KeyStore(tmp_path / "keys", tmp_path / "project")


def erase(
    keys: KeyStore,
    *rows: int,
    images: NDArray[np.uint8] = IMAGES,
    pictures: NDArray[np.uint8] = PICTURES,
) -> Erased:
    extend(PATH, keys, lambda key: lines_for(rows, IDS, images, pictures, key))
    return Erased.read(PATH)


def kept(
    erased: Erased,
    keys: KeyStore,
    ids: list[str] = IDS,
    images: NDArray[np.uint8] = IMAGES,
    pictures: NDArray[np.uint8] = PICTURES,
) -> list[int]:
    return [int(row) for row in erased.kept(ids, images, pictures, keys)]


def others(number: int) -> NDArray[np.uint8]:
    """Fingerprints of pictures that are none of ours."""
    return np.random.default_rng(1).integers(0, 256, (number, 32), dtype=np.uint8)


def test_what_the_list_names_is_left_out(keys: KeyStore) -> None:
    assert kept(erase(keys, 1, 4), keys) == [0, 2, 3, 5]


def test_a_sample_that_comes_back_under_another_name_is_left_out(keys: KeyStore) -> None:
    erased, renamed = erase(keys, 1), [f"new/{row}.png" for row in range(6)]
    assert kept(erased, keys, ids=renamed, pictures=others(6)) == [0, 2, 3, 4, 5]  # by its pixels
    assert kept(erased, keys, ids=renamed, images=255 - IMAGES) == [0, 2, 3, 4, 5]  # by its picture
    assert kept(erased, keys, ids=renamed, images=255 - IMAGES, pictures=others(6)) == list(range(6))


def test_a_sample_that_comes_back_with_other_pixels_is_left_out(keys: KeyStore) -> None:
    assert kept(erase(keys, 1), keys, images=255 - IMAGES, pictures=others(6)) == [0, 2, 3, 4, 5]


def test_a_twin_that_nobody_asked_for_stays(keys: KeyStore) -> None:
    twins = IMAGES.copy()
    twins[2] = twins[1]
    pictures = fingerprints_of(twins)
    one = erase(keys, 1, images=twins, pictures=pictures)
    assert kept(one, keys, images=twins, pictures=pictures) == [0, 2, 3, 4, 5]
    both, renamed = erase(keys, 1, 2, images=twins, pictures=pictures), ["a", "b", "c", *IDS[3:]]
    assert kept(both, keys, ids=renamed, images=twins, pictures=pictures) == [0, 3, 4, 5]


def test_a_twin_stays_at_every_size_and_one_that_is_a_twin_at_one_size_stays_too(keys: KeyStore) -> None:
    """Row 2 is the picture of row 1; row 3 is another that only looks the same once it is scaled."""
    scaled, pictures = IMAGES.copy(), PICTURES.copy()
    scaled[2] = scaled[3] = scaled[1]
    pictures[2] = pictures[1]
    erased = erase(keys, 1, images=scaled, pictures=pictures)
    assert kept(erased, keys, images=scaled, pictures=pictures) == [0, 2, 3, 4, 5]
    assert kept(erased, keys, images=IMAGES, pictures=pictures) == [0, 2, 3, 4, 5]


def test_the_same_lines_make_the_same_file_in_whatever_order_they_came(keys: KeyStore) -> None:
    first = erase(keys, 1)
    text = PATH.read_text()
    assert erase(keys, 1) == first
    assert PATH.read_text() == text
    both = erase(keys, 4)
    assert set(first.lines) < set(both.lines)
    assert Erased((), both.key).having(reversed(both.lines)).text == PATH.read_text()
    assert kept(both, keys) == [0, 2, 3, 5]


def test_the_file_tells_no_id_but_its_count_and_key(keys: KeyStore) -> None:
    erase(keys, 0, 1, 2)
    text = PATH.read_text()
    assert "train" not in text
    assert len(re.findall(r"^(?:id|pixels|picture) [0-9a-f]{64}$", text, re.MULTILINE)) == 9
    assert "\ncount 9\n" in text
    assert f"\nkey {check_value(keys.load(LIST_KEY))}\n" in text
    assert PICTURES[0].tobytes().hex() not in text


def test_an_empty_list_needs_no_key_and_any_other_does(keys: KeyStore) -> None:
    assert kept(Erased(()), keys) == list(range(6))
    assert not Erased(()).naming(keys)(IDS[1])
    erased = erase(keys, 1)
    assert [erased.naming(keys)(name) for name in IDS[:3]] == [False, True, False]
    keys.destroy(LIST_KEY)
    for ask in (lambda: kept(erased, keys), lambda: erased.naming(keys)):
        with pytest.raises(ExpungeError, match=r"lacks the key that tells which; copy erased\.key there"):
            ask()


def test_under_another_key_nothing_is_compared(keys: KeyStore) -> None:
    erased = erase(keys, 1)
    keys.destroy(LIST_KEY)
    keys.create(LIST_KEY)
    with pytest.raises(ExpungeError, match=r"^erased\.key in .*keys is not the one that the list"):
        kept(erased, keys)


@pytest.mark.parametrize(
    "line",
    ["id", "id abc", f"name {'a' * 64}", f"id {'A' * 64}", f" id {'a' * 64}", "count 3", "<<<<<<< x", "é"],
)
def test_a_damaged_list_is_refused_with_the_line(keys: KeyStore, line: str) -> None:
    erase(keys, 1)
    PATH.write_text(PATH.read_text() + line + "\n", encoding="utf-8")
    with pytest.raises(ExpungeError, match=r"erased.txt.* is damaged; restore it: git checkout"):
        Erased.read(PATH)
    PATH.unlink()
    with pytest.raises(ExpungeError, match=r"erased\.txt is missing"):
        Erased.read(PATH)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, f"id {'a' * 64}"],
        lambda lines: [*lines[:-1], f"picture {'f' * 64}"],
        lambda lines: [line for line in lines if not line.startswith("count")],
        lambda lines: [line for line in lines if not line.startswith("digest")],
        lambda lines: [line for line in lines if not line.startswith("key")],
        lambda lines: [line for line in lines if not line.startswith("format")],
        lambda lines: [line for line in lines if line.startswith(("id", "pixels", "picture"))],
        lambda lines: [line.replace("format 2", "format 3") for line in lines],
    ],
)
def test_a_list_that_was_edited_is_refused(keys: KeyStore, change: object) -> None:
    assert callable(change)
    erase(keys, 1)
    PATH.write_text("".join(f"{line}\n" for line in change(PATH.read_text().splitlines())))
    with pytest.raises(ExpungeError, match=r"^erased\.txt ") as caught:
        Erased.read(PATH)
    assert "\n" not in str(caught.value)


def test_a_list_of_the_first_format_is_read_and_written_anew(keys: KeyStore) -> None:
    """It had neither header nor pictures."""
    erase(keys, 1)
    key = keys.load(LIST_KEY)
    old = "# Samples that were erased and must not return\n" + "".join(
        f"{kind} {digest}\n" for kind, digest in Erased.read(PATH).lines if kind != "picture"
    )
    PATH.write_text(old)
    before = Erased.read(PATH)
    assert before.key is None
    assert len(before.lines) == 2
    assert kept(before, keys, ids=list("abcdef")) == [0, 2, 3, 4, 5]
    (keys.folder / "erased.mark").write_text(Erased((), check_value(key)).having(before.lines).text)
    after = erase(keys, 4)
    assert PATH.read_text().count("format 2\n") == 1
    assert len(after.lines) == 5
    assert kept(after, keys) == [0, 2, 3, 5]


def test_the_digests_are_those_of_the_keys(keys: KeyStore) -> None:
    lines = dict(erase(keys, 1).lines)
    key = keys.load(LIST_KEY)
    assert lines["id"] == reference(key, "id", IDS[1])
    assert lines["picture"] == reference(key, "picture", PICTURES[1].tobytes().hex())


def test_fifty_thousand_samples_are_compared_with_a_hundred_thousand_lines_in_no_time(keys: KeyStore) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
    pictures = random.integers(0, 256, (50_000, 32), dtype=np.uint8)
    ids = [f"train/{row:05d}.png" for row in range(50_000)]
    key = keys.create(LIST_KEY)
    kinds = np.resize(["id", "pixels", "picture"], 100_000).tolist()
    lines = [(kind, random.bytes(32).hex()) for kind in kinds]
    lines += [("id", reference(key, "id", ids[7]))]
    Erased((), check_value(key)).having(lines).write(PATH)
    started = time.process_time()
    rows = Erased.read(PATH).kept(ids, images, pictures, keys)
    assert time.process_time() - started < 3  # 0.9 s on a quiet machine
    assert len(rows) == 49_999
    assert 7 not in rows
