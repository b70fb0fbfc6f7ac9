"""Images in a file are the same images, and cost no memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.datasets._reading.decode import Decoder
from tasks.datasets._reading.still import Decoding
from tasks.samples import mapped
from tasks.samples.copies import find_copies
from tasks.samples.mapped import Mapped, blocks
from tests.datasets.building import colour, encoded, grey
from tests.samples.building import in_files


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 3, 9, 7), dtype=np.uint8)


@pytest.fixture
def of_file(images: NDArray[np.uint8], tmp_path: Path) -> Mapped:
    return in_files(images, tmp_path, each=20)


def test_rows_are_those_of_the_array(of_file: Mapped, images: NDArray[np.uint8]) -> None:
    assert (of_file.shape, of_file.ndim, len(of_file)) == (images.shape, 4, 50)
    assert of_file.dtype == np.uint8
    rows = np.array([7, 0, 49, 7])
    for key in (3, slice(4, 20), slice(None), rows, np.arange(50) % 3 == 0):
        assert np.array_equal(of_file[key], images[key])
    assert np.array_equal(np.stack(list(of_file)), images)
    taken = of_file.take(rows)
    assert np.array_equal(np.asarray(taken), images[rows])
    assert np.array_equal(taken.take(np.array([2, 0]))[:], images[[49, 7]])
    both = taken.followed_by(of_file.take(np.array([1])))
    assert np.array_equal(np.asarray(both), images[[7, 0, 49, 7, 1]])
    taken.expect(np.array([0, 3]))


@pytest.mark.parametrize("block", [1, 400, 10**9])
def test_blocks_are_all_images_in_order(
    of_file: Mapped, images: NDArray[np.uint8], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "BLOCK", block)
    assert np.array_equal(np.concatenate(list(blocks(of_file))), images)


def test_a_set_too_large_for_the_memory_is_decoded_into_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = [encoded(grey(0)), encoded(grey(1)), encoded(colour(2)), encoded(grey(3))]

    def decoded(limit: int) -> mapped.Images:
        monkeypatch.setattr(mapped, "IN_MEMORY", limit)
        decoder = Decoder(len(contents), Decoding(), Path("pets"))
        for number, content in enumerate(contents):
            decoder.add(content, f"{number}.png")
        return decoder.finish()

    in_memory, in_file = decoded(10**9), decoded(0)
    assert isinstance(in_file, Mapped)
    assert np.array_equal(np.asarray(in_file), in_memory)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_disk_too_small_for_the_set_is_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    decoder = Decoder(2**40, Decoding(), Path("pets"))
    decoder.add(encoded(grey(0, 64, 64)), "0.png")
    with pytest.raises(ExpungeError, match=r"need 8388608 GiB on the disk of .*; set split\.resize"):
        decoder.finish()


def test_copies_are_found_in_a_file_as_in_memory(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (200, 1, 12, 12), dtype=np.uint8)
    images[50], images[60] = images[3], np.clip(images[4].astype(int) + 1, 0, 255)
    assert find_copies(in_files(images, tmp_path, each=70)) == find_copies(images)


def test_reading_all_of_a_large_file_takes_no_memory(tmp_path: Path) -> None:
    program = f"""
import resource, numpy as np
from pathlib import Path
from tasks.samples.mapped import Mapped, Pixels, blocks
path = Path({str(tmp_path / "images.npy")!r})
file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(4000, 3, 224, 224))
file.flush()
del file
images = Mapped([Pixels(np.lib.format.open_memmap(path, mode="r"))])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(int(block.sum()) for block in blocks(images))
rng = np.random.default_rng(0)
for _ in range(50):
    images[rng.integers(0, 4000, 128)]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120  # of 574 MiB in the file
