"""Shards of images: who leaves changes one of them, and nobody else moves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.files import file_digests
from tasks.samples import mapped, shards
from tasks.samples.mapped import Mapped
from tasks.samples.shards import SLOTS, read_shards, slots_for, write_shards

SHAPE = (1, 3, 4)
STEP = 5
NAMES = [f"train/{number}, a.png" for number in range(23)]


SIZE = STEP * 12 + 7


def images_of(names: Sequence[str]) -> NDArray[np.uint8]:
    """Images that can be told apart, of whatever samples."""
    return np.stack(
        [np.random.default_rng([*name.encode()]).integers(1, 256, SHAPE, dtype=np.uint8) for name in names]
    )


def write(names: Sequence[str], folder: Path) -> dict[str, str]:
    write_shards(images_of(names), names, folder, SIZE)
    return file_digests(folder)


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_written_is_read_in_the_order_of_the_ids(tmp_path: Path, mmap: bool) -> None:
    files = write(NAMES, tmp_path)
    assert sorted(files) == ["00000.npy", "00001.npy", "00002.npy", "00003.npy", "00004.npy", SLOTS]
    names = NAMES[::-1]
    found = read_shards(tmp_path, names, mmap=mmap)
    assert isinstance(found, Mapped) == mmap
    assert np.array_equal(np.asarray(found), images_of(names))


def test_many_images_stay_in_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(NAMES, tmp_path)
    monkeypatch.setattr(mapped, "IN_MEMORY", 100)
    assert isinstance(read_shards(tmp_path, NAMES), Mapped)


@pytest.mark.parametrize("gone", [0, 4, 5, 12, 22])
def test_one_that_leaves_changes_its_shard_alone_and_nobody_moves(tmp_path: Path, gone: int) -> None:
    before = write(NAMES, tmp_path)
    slots = shards._read_slots(tmp_path / SLOTS)
    inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    rest = [*NAMES[:gone], *NAMES[gone + 1 :]]
    after = write(rest, tmp_path)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {f"{gone // STEP:05}.npy", SLOTS}
    assert changed == {name for name in inodes if inodes[name] != (tmp_path / name).stat().st_ino}
    assert shards._read_slots(tmp_path / SLOTS) == {name: slots[name] for name in rest}
    assert np.array_equal(np.asarray(read_shards(tmp_path, rest)), images_of(rest))
    leaver = images_of([NAMES[gone]]).tobytes()
    assert not any(leaver in path.read_bytes() for path in tmp_path.glob("*.npy"))


def test_one_that_comes_takes_the_free_slot(tmp_path: Path) -> None:
    write(NAMES, tmp_path)
    before = write([*NAMES[:7], *NAMES[8:]], tmp_path)
    names = ["new", *NAMES[:7], *NAMES[8:], "newer"]
    after = write(names, tmp_path)
    slots = shards._read_slots(tmp_path / SLOTS)
    assert (slots["new"], slots["newer"]) == (7, 23)
    assert {name for name in after if after[name] != before[name]} == {"00001.npy", "00004.npy", SLOTS}


def test_another_size_of_image_keeps_the_slots(tmp_path: Path) -> None:
    write(NAMES, tmp_path)
    names = NAMES[3:]
    large = np.zeros((20, 3, 9, 9), dtype=np.uint8)
    write_shards(large, names, tmp_path, SIZE)
    assert shards._read_slots(tmp_path / SLOTS) == {name: number + 3 for number, name in enumerate(names)}
    assert np.array_equal(np.asarray(read_shards(tmp_path, names)), large)


def test_what_lies_there_from_before_is_cleared(tmp_path: Path) -> None:
    write(NAMES, tmp_path)
    (tmp_path / "notes.txt").write_text(NAMES[0])
    write(NAMES[:6], tmp_path)
    assert sorted(file_digests(tmp_path)) == ["00000.npy", "00001.npy", SLOTS]


def test_the_same_samples_in_an_empty_folder_are_numbered_in_order(tmp_path: Path) -> None:
    for damage in (b"", b"sample_id,slot\nx,-1\n", b"sample_id,slot\nx,0\ny,0\n", b"\xff"):
        tmp_path.joinpath(SLOTS).write_bytes(damage)
        write(NAMES, tmp_path)
        assert shards._read_slots(tmp_path / SLOTS) == {name: row for row, name in enumerate(NAMES)}


@pytest.mark.parametrize("seed", range(40))
def test_slots_are_unique_stay_and_are_dense_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = rng.permutation(NAMES)[: rng.integers(1, len(NAMES) + 1)].tolist()
    known = rng.permutation(NAMES)[: rng.integers(0, len(NAMES) + 1)].tolist()
    before = dict(zip(known, rng.permutation(40).tolist(), strict=False))
    slots = slots_for(names, before).tolist()
    assert len(set(slots)) == len(names)
    assert max(slots) + 1 <= 2 * len(names)
    staying = {name: before[name] for name in names if name in before}
    if staying and max(staying.values()) + 1 <= 2 * len(names):
        found = dict(zip(names, slots, strict=True))
        assert {name: found[name] for name in staying} == staying


def broken(folder: Path, how: str) -> None:
    first, last = folder / "00000.npy", folder / "00004.npy"
    if how == "cut":
        first.write_bytes(first.read_bytes()[:-1])
    elif how == "empty":
        first.write_bytes(b"")
    elif how == "pickled":
        np.save(first, np.array([{}], dtype=object), allow_pickle=True)
    elif how == "floats":
        np.save(first, np.zeros((STEP, *SHAPE)))
    elif how == "of other images":
        np.save(first, np.zeros((STEP, 3, 3, 3), dtype=np.uint8))
    elif how == "gone":
        first.unlink()
    elif how == "gone at the end":
        last.unlink()
    elif how == "shorter":
        shutil.copy(last, folder / "00001.npy")
    elif how == "all gone":
        for path in folder.glob("*.npy"):
            path.unlink()
    elif how == "no slots":
        (folder / SLOTS).unlink()
    elif how == "damaged slots":
        (folder / SLOTS).write_text((folder / SLOTS).read_text() + "more,22\n")
    elif how == "other samples":
        (folder / SLOTS).write_text((folder / SLOTS).read_text().replace("train/3", "train/77"))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", r"00000\.npy is damaged .* dvc checkout"),
        ("empty", r"00000\.npy is damaged .* dvc checkout"),
        ("pickled", r"00000\.npy is damaged .* dvc checkout"),
        ("floats", r"00000\.npy holds no uint8 \[N, C, H, W\] array"),
        ("of other images", r"0000[01]\.npy is not of the same split"),
        ("gone", r"00001\.npy is not of the same split"),
        ("gone at the end", "shards are missing at the end"),
        ("shorter", r"00001\.npy is not of the same split"),
        ("all gone", "holds no shards; .* dvc repro split"),
        ("no slots", r"slots\.csv is missing; .* dvc repro split"),
        ("damaged slots", r"slots\.csv is damaged .* dvc checkout"),
        ("other samples", "names 23 samples, .* not the same; .* dvc checkout"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, how: str, said: str, mmap: bool) -> None:
    write(NAMES, tmp_path)
    broken(tmp_path, how)
    with pytest.raises(ExpungeError, match=said) as caught:
        read_shards(tmp_path, NAMES, mmap=mmap)
    assert "\n" not in str(caught.value)
