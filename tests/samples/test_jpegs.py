"""Images as JPEG: every reader sees the same pixels, which are nearly those of the picture."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.core.files import file_digests
from tasks.core.params import load, validate
from tasks.datasets._reading.decode import Decoder
from tasks.datasets._reading.still import Decoding
from tasks.erasure.search import Wanted, find
from tasks.requests.keys import reference
from tasks.requests.suppression import fingerprint
from tasks.samples.jpegs import Jpegs, encode, zipped
from tasks.samples.manifest import load_split
from tasks.samples.mapped import Mapped
from tasks.samples.shards import read_shards, write_shards
from tasks.split import split
from tests.datasets.building import colour, encoded, write_image

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = load(ROOT / "params.yaml").model_dump()
SIZE = 5 * 3 * 16 * 16


def smooth(number: int, channels: int) -> NDArray[np.uint8]:
    """A picture without noise, ``[C, 16, 16]``."""
    rows, columns = np.mgrid[:16, :16]
    planes = [128 + 100 * np.sin((rows * (c + 1) + columns + number * 7) / 12) for c in range(channels)]
    return np.stack(planes).astype(np.uint8)


def decoded(folder: Path, images: list[Any]) -> Mapped:
    decoder = Decoder(len(images), Decoding(as_jpeg=True), folder)
    for number, image in enumerate(images):
        decoder.add(encoded(image), f"{number}.png")
    found = decoder.finish()
    assert isinstance(found, Mapped)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def pictures() -> list[Any]:
    """Grey and coloured ones, the first of them grey."""
    kinds = [1, 1, 3, 1, 3, 3, 1, 3, 3, 1, 1, 3, 1]
    found = [smooth(number, channels) for number, channels in enumerate(kinds)]
    return [Image.fromarray(each[0] if len(each) == 1 else each.transpose(1, 2, 0)) for each in found]


NAMES = [f"train/{number}.png" for number in range(13)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_what_pillow_makes_of_it_and_near_the_picture(channels: int) -> None:
    image = smooth(0, channels)
    jpeg = encode(image)
    assert jpeg.shape == image.shape
    with Image.open(io.BytesIO(jpeg.content)) as opened:
        pixels = np.asarray(opened).reshape(16, 16, channels).transpose(2, 0, 1)
    assert np.abs(pixels.astype(int) - image).max() <= 6


def test_shards_give_back_what_the_decoder_gave(folder: Path) -> None:
    images = decoded(folder, pictures())
    assert images.shape == (13, 3, 16, 16)
    expected = np.asarray(images)
    assert np.array_equal(expected[0][0], expected[0][1])
    write_shards(images, NAMES, folder, SIZE)
    assert sorted(file_digests(folder)) == ["00000.zip", "00001.zip", "00002.zip", "slots.csv"]
    for mmap in (False, True):
        found = read_shards(folder, NAMES[::-1], mmap=mmap)
        assert np.array_equal(np.asarray(found), expected[::-1])
    with zipfile.ZipFile(folder / "00002.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["000000.jpg", "000001.jpg", "000002.jpg"]


def test_one_that_leaves_changes_its_shard_alone(folder: Path) -> None:
    images = decoded(folder, pictures())
    write_shards(images, NAMES, folder, SIZE)
    before = file_digests(folder)
    rest = np.delete(np.arange(13), 6)
    write_shards(images.take(rest), [NAMES[row] for row in rest], folder, SIZE)
    after = file_digests(folder)
    assert {name for name in before if before[name] != after[name]} == {"00001.zip", "slots.csv"}
    found = read_shards(folder, [NAMES[row] for row in rest], mmap=True)
    assert np.array_equal(np.asarray(found), np.asarray(images)[rest])


@pytest.mark.parametrize("row", [0, 2])
def test_a_search_finds_a_sample_in_its_shard(folder: Path, row: int) -> None:
    images = decoded(folder, pictures())
    write_shards(images, NAMES, folder, SIZE)
    key = b"k" * 32
    pixels = frozenset({reference(key, "pixels", fingerprint(images[row]))})
    wanted = [Wanted(key, frozenset(), pixels, frozenset())]
    assert [bool(find(path, wanted)) for path in sorted(folder.glob("*.zip"))] == [True, False, False]


def test_nobody_is_in_a_free_slot(tmp_path: Path) -> None:
    path = tmp_path / "00000.zip"
    path.write_bytes(zipped([b"", encode(smooth(1, 1)).content, b""], (3, 16, 16)))
    file = Jpegs.of_zip(path)
    assert (len(file), file.shape) == (3, (3, 3, 16, 16))
    found = file.read(np.array([2, 1, 0]))
    assert not found[[0, 2]].any()
    assert np.abs(found[1].astype(int) - smooth(1, 1)).max() <= 6


@pytest.mark.parametrize("end", [0, 10, 300, -30, -1])
def test_a_damaged_shard_is_refused_in_one_line(folder: Path, end: int) -> None:
    write_shards(decoded(folder, pictures()), NAMES, folder, SIZE)
    path = folder / "00001.zip"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ExpungeError, match=r"00001\.zip is damaged .* dvc checkout") as caught:
        read_shards(folder, NAMES)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_refused_when_it_is_read(folder: Path) -> None:
    write_shards(decoded(folder, pictures()), NAMES, folder, SIZE)
    path = folder / "00001.zip"
    content = path.read_bytes()
    path.write_bytes(content[:60] + b"\0" * 200 + content[260:])
    with pytest.raises(ExpungeError, match=r"00001\.zip: image 0 is damaged .* dvc checkout"):
        read_shards(folder, NAMES)


def test_a_whole_split_of_jpeg_keeps_out_what_was_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        write_image(
            tmp_path / f"pets/{'test' if number > 35 else 'train'}/{number % 2}/{number}.png", colour(number)
        )
    section = {"source": "image_folder", "path": "pets", "store": "jpeg", "forget": {"kind": "random"}}
    split(validate({**DEFAULTS, "split": section}))
    loaded = load_split()
    assert len(loaded.images) == 40
    assert [path.name for path in Path("data/split/images").glob("*.zip")] == ["00000.zip"]
    split(validate({**DEFAULTS, "split": {**section, "store": "pixels"}}))
    pixels = load_split()
    assert [path.name for path in Path("data/split/images").glob("0*")] == ["00000.npy"]
    assert not np.array_equal(loaded.images, pixels.images)
    assert loaded.samples.sample_ids == pixels.samples.sample_ids


def test_a_source_without_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpungeError, match="store is jpeg, but source digits has no files"):
        split(
            validate(
                {
                    **DEFAULTS,
                    "split": {**DEFAULTS["split"], "source": "digits", "store": "jpeg", "erased": None},
                }
            )
        )
    assert not list(tmp_path.rglob("*.npy"))
