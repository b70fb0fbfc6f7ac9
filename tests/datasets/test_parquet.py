from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import ExpungeError
from tasks.datasets.parquet import parquet, remove
from tasks.samples.check import check
from tasks.samples.image_set import ImageSet
from tests.datasets.building import colour, encoded, reading, write_hub_file

PNGS = [encoded(colour(seed)) for seed in range(12)]
EMBEDDED = Path("data/fashion-mnist-10k")
TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


def write_set(folder: Path, **train: Any) -> Path:
    """Six training rows of two classes, changed by ``train``, and four test rows."""
    options: dict[str, Any] = {"images": PNGS[:6], "labels": [0, 1, 0, 1, 0, 1]} | train
    write_hub_file(folder / TRAIN, **options)
    write_hub_file(folder / TEST, PNGS[6:10], [1, 0, 1, 0])
    return folder


def ids_by_image(of: ImageSet) -> dict[bytes, str]:
    return {image.tobytes(): name for image, name in zip(of.images, of.sample_ids, strict=True)}


def test_the_embedded_sample_is_read() -> None:
    of = check(parquet(EMBEDDED, reading()), "embedded")
    assert of.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(of.labels[~of.is_test]).tolist() == [500] * 10
    assert np.bincount(of.labels[of.is_test]).tolist() == [500] * 10
    assert of.sample_ids[0] == "train/00009.png"
    assert of.sources[0] == "train-00000-of-00001.parquet#0"
    assert of.sample_ids[-1] == "test/09998.png"
    assert of.sources[-1] == "test-00000-of-00001.parquet#4999"


def test_pixels_labels_and_parts_follow_the_rows(tmp_path: Path) -> None:
    of = check(parquet(write_set(tmp_path), reading()), "here")
    assert np.array_equal(of.images, np.stack([colour(seed) for seed in range(10)]).transpose(0, 3, 1, 2))
    assert of.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert of.is_test.tolist() == [False] * 6 + [True] * 4
    assert of.classes == ("0", "1")


def test_images_are_resized(tmp_path: Path) -> None:
    assert parquet(write_set(tmp_path), reading(16)).images.shape == (10, 3, 16, 16)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_binary_column_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    write_set(tmp_path)
    table = pa.table({"label": pa.array([0, 1], pa.uint8()), "img": pa.array(PNGS[:2], kind)})
    pq.write_table(table, tmp_path / TRAIN)
    of = parquet(tmp_path, reading())
    assert of.sample_ids[0] == f"train/{sha256(PNGS[0]).hexdigest()[:16]}"
    assert of.labels.dtype == np.int64


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    write_set(tmp_path).joinpath(TRAIN).unlink()
    for shard in (2, 0, 1):
        write_hub_file(tmp_path / f"train-{shard:05d}-of-00003.parquet", PNGS[shard : shard + 1], [shard % 2])
    of = parquet(tmp_path, reading())
    assert of.labels[:3].tolist() == [0, 1, 0]
    assert of.sources[:3] == tuple(f"train-0000{shard}-of-00003.parquet#0" for shard in range(3))
    counts = tuple((f"train-0000{shard}-of-00003.parquet", 1) for shard in range(3))
    assert of.row_counts == of.subset(np.array([1, 2])).row_counts == counts


def test_many_row_groups_and_batches_keep_their_order(tmp_path: Path) -> None:
    count = 2500
    write_set(
        tmp_path, images=[PNGS[row % 7] for row in range(count)], labels=[row % 2 for row in range(count)]
    )
    pq.write_table(pq.read_table(tmp_path / TRAIN), tmp_path / TRAIN, row_group_size=333)
    of = parquet(tmp_path, reading())
    assert all(np.array_equal(of.images[row], of.images[row % 7]) for row in range(count))
    assert of.sources[count - 1] == f"{TRAIN}#{count - 1}"


def test_unique_paths_become_ids_below_their_part(tmp_path: Path) -> None:
    paths = ["a.png", "train/b.png", "test/c.png", "d/a.png", "e,.png", "training/f.png"]
    of = parquet(write_set(tmp_path, paths=paths), reading())
    expected = ("a.png", "b.png", "test/c.png", "d/a.png", "e,.png", "training/f.png")
    assert of.sample_ids[:6] == tuple(f"train/{name}" for name in expected)


def test_the_same_path_in_both_parts_gives_two_ids(tmp_path: Path) -> None:
    write_hub_file(tmp_path / TRAIN, PNGS[:2], [0, 1], paths=["cat/0.png", "dog/0.png"])
    write_hub_file(tmp_path / TEST, PNGS[2:4], [0, 1], paths=["cat/0.png", "dog/0.png"])
    ids = parquet(tmp_path, reading()).sample_ids
    assert ids == ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")


@pytest.mark.parametrize(
    "paths",
    [
        None,
        ["a", "b", "c", "d", "e", None],
        ["a", "b", "c", "d", "e", ""],
        ["a", "b", "c", "d", "e", "a"],
        ["a", "b", "c", "d", "e", "train/a"],
    ],
)
def test_missing_or_repeated_paths_give_ids_from_the_bytes(tmp_path: Path, paths: Any) -> None:
    of = parquet(write_set(tmp_path, paths=paths), reading())
    assert of.sample_ids[:6] == tuple(f"train/{sha256(png).hexdigest()[:16]}" for png in PNGS[:6])


def test_copies_of_an_image_are_numbered_in_order_of_their_labels(tmp_path: Path) -> None:
    digest = sha256(PNGS[0]).hexdigest()[:16]
    images = [PNGS[0], PNGS[0], PNGS[1], PNGS[0]]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        labels = [2, 0, 1, 1]
        write_set(tmp_path, images=[images[row] for row in order], labels=[labels[row] for row in order])
        of = parquet(tmp_path, reading())
        found = dict(zip(of.labels[:4].tolist(), of.sample_ids[:4], strict=False))
        assert found[0] == f"train/{digest}"
        assert found[2] == f"train/{digest}-3"
        assert len(set(of.sample_ids)) == 8


@pytest.mark.parametrize("paths", [None, [f"{index}.png" for index in range(6)]])
def test_ids_survive_dropped_and_reordered_rows(tmp_path: Path, paths: list[str] | None) -> None:
    before = ids_by_image(parquet(write_set(tmp_path / "all", paths=paths), reading()))
    order = [4, 0, 3, 1]
    smaller = write_set(
        tmp_path / "fewer",
        images=[PNGS[row] for row in order],
        labels=[row % 2 for row in order],
        paths=[paths[row] for row in order] if paths else None,
    )
    after = ids_by_image(parquet(smaller, reading()))
    assert len(after) == 8
    assert all(before[image] == name for image, name in after.items())


def hub_metadata(names: Any) -> dict[str, str]:
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def test_class_names_come_from_the_hubs_metadata(tmp_path: Path) -> None:
    assert parquet(write_set(tmp_path, metadata=hub_metadata(["cat", "dog"])), reading()).classes == (
        "cat",
        "dog",
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {"huggingface": "{"},
        {"huggingface": "[]"},
        {"huggingface": "null"},
        hub_metadata(None),
        hub_metadata([1]),
    ],
)
def test_metadata_without_class_names_is_passed_over(tmp_path: Path, metadata: dict[str, str]) -> None:
    assert parquet(write_set(tmp_path, metadata=metadata), reading()).classes == ("0", "1")


def refusal(path: Path) -> str:
    with pytest.raises(ExpungeError) as caught:
        check(parquet(path, reading()), str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_class_names_that_differ_between_files_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, metadata=hub_metadata(["cat", "dog"]))
    write_hub_file(tmp_path / TEST, PNGS[6:8], [0, 1], metadata=hub_metadata(["dog", "cat"]))
    assert refusal(tmp_path).endswith(f"{TRAIN} and {TEST} give the classes different names")


def test_a_label_beyond_the_class_names_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, labels=[0, 1, 2, 0, 0, 0], metadata=hub_metadata(["cat", "dog"]))
    assert refusal(tmp_path).endswith(f"label 2 of {TRAIN}#2; classes are 0 to 1")


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, 1, None, 0, 1, 0], None, f"{TRAIN}#2 in .* has no label"),
        ([0, 1, 0, -1, 1, 0], None, f"{TRAIN}#3 in .* has label -1; 0 or more is right"),
        ([0, 1, 0, 2**63, 1, 0], pa.uint64(), f"{TRAIN}#3 in .* has label 9223372036854775808"),
        ([0, 1, 0, 1, 1, 10**6], None, "label 1000000 among 10 rows; labels must be 0, 1, 2, … without gaps"),
        ([0.0, 1.0] * 3, None, "column label is double"),
        ([[0], [1]] * 3, None, "column label is list"),
        ([0] * 6, None, "training images of 1 class; a classifier needs at least 2"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(
    tmp_path: Path, labels: list[Any], kind: pa.DataType | None, message: str
) -> None:
    write_set(tmp_path, labels=labels, label_type=kind)
    with pytest.raises(ExpungeError, match=message):
        check(parquet(tmp_path, reading()), "here")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    write_hub_file(tmp_path / TRAIN, PNGS[:2], [0, 0])
    write_hub_file(tmp_path / TEST, PNGS[2:4], [0, 0])
    assert refusal(tmp_path).endswith("1 class (0); a classifier needs at least 2")


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    assert "missing does not exist; a folder with train-*.parquet" in refusal(tmp_path / "missing")


def test_a_single_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    message = refusal(write_set(tmp_path) / TRAIN)
    assert "is a single file; a folder with" in message
    assert message.endswith("put it into a folder as train.parquet")


def test_a_folder_without_a_part_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    assert "holds no train-*.parquet (found: nothing)" in refusal(tmp_path)
    write_set(tmp_path).joinpath(TRAIN).unlink()
    assert f"holds no train-*.parquet (found: {TEST})" in refusal(tmp_path)


def test_a_missing_file_of_several_is_noticed(tmp_path: Path) -> None:
    write_set(tmp_path).joinpath(TRAIN).rename(tmp_path / "train-00001-of-00003.parquet")
    assert refusal(tmp_path).endswith("train-00001-of-00003.parquet announces 3 files, found 1")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = (write_set(tmp_path) / TRAIN).read_bytes()
    for share in range(0, 100, 9):
        (tmp_path / TRAIN).write_bytes(whole[: len(whole) * share // 100])
        assert f"{TRAIN} is not a readable Parquet file: " in refusal(tmp_path)


def test_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = (write_set(tmp_path) / TRAIN).read_bytes()
    sound = parquet(tmp_path, reading())
    refused = 0
    for start in range(0, len(whole), 40):
        (tmp_path / TRAIN).write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        try:
            read = parquet(tmp_path, reading())
        except ExpungeError:
            refused += 1
        else:  # statistics and empty columns may be damaged
            assert np.array_equal(read.images, sound.images)
            assert np.array_equal(read.labels, sound.labels)
            assert read.sample_ids == sound.sample_ids
    assert refused > len(whole) / 40 / 2


def test_a_flipped_bit_is_noticed_where_the_file_has_checksums(tmp_path: Path) -> None:
    write_set(tmp_path)
    table = pa.table({"image": PNGS[:6], "label": pa.array([0, 1, 0, 1, 0, 1], pa.int64())})
    pq.write_table(
        table, tmp_path / TRAIN, compression="none", use_dictionary=False, write_page_checksum=True
    )
    whole = (tmp_path / TRAIN).read_bytes()
    labels = np.array([0, 1, 0, 1, 0, 1]).tobytes()
    (tmp_path / TRAIN).write_bytes(whole.replace(labels, b"\1" + labels[1:], 1))
    assert "CRC checksum verification failed" in refusal(tmp_path)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, images=[], labels=[], label_type=pa.int64())
    assert refusal(tmp_path).endswith(f"{TRAIN} has no rows")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["label"], "has no column of images, binary or struct<bytes, path>; found label"),
        (["img", "class"], r"has no column of labels .*; found img, class; set split\.label_column"),
        (["img", "fine_label", "coarse_label"], r"fine_label and coarse_label; set split\.label_column"),
        (["img", "label", "label"], "has the columns label and label"),
    ],
)
def test_other_columns_are_refused_with_those_found(tmp_path: Path, columns: list[str], message: str) -> None:
    write_set(tmp_path)
    arrays = [pa.array([0, 1]) if name not in ("img", "image") else pa.array(PNGS[:2]) for name in columns]
    pq.write_table(pa.Table.from_arrays(arrays, columns), tmp_path / TRAIN)
    with pytest.raises(ExpungeError, match=message):
        parquet(tmp_path, reading())


@pytest.mark.parametrize("images", [["a.png", "b.png"], [{"path": "a.png"}] * 2, [[1, 2]] * 2, [1, 2]])
def test_an_image_column_without_bytes_is_refused(tmp_path: Path, images: list[Any]) -> None:
    write_set(tmp_path)
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / TRAIN)
    with pytest.raises(ExpungeError, match=r"column image is .*; binary or struct<bytes, path> is right"):
        parquet(tmp_path, reading())


def test_all_unusable_images_are_listed_with_their_rows(tmp_path: Path) -> None:
    write_set(tmp_path, images=[PNGS[0], None, PNGS[2], PNGS[3][:-40], b"", PNGS[5]])
    message = refusal(tmp_path)
    assert "2 unusable file(s)" in message
    assert f"{TRAIN}#3 (damaged" in message
    assert f"{TRAIN}#4 (not a JPEG" in message


def test_a_row_without_a_label_is_refused_and_one_without_an_image_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = pq.read_table(write_set(tmp_path) / TRAIN)

    def with_a_hole(column: str) -> pa.Table:
        holes = pa.array([None, *whole[column].to_pylist()[1:]], whole[column].type)
        return whole.set_column(whole.column_names.index(column), column, holes)

    pq.write_table(with_a_hole("label"), tmp_path / TRAIN)
    assert f"{TRAIN}#0 in {tmp_path} has no label" in refusal(tmp_path)
    pq.write_table(with_a_hole("image"), tmp_path / TRAIN)
    of = check(parquet(tmp_path, reading()), "here")
    assert of.sources[:5] == tuple(f"{TRAIN}#{row}" for row in range(1, 6))
    assert of.row_counts == ((TRAIN, 6),)
    assert "1 rows have a label and no image; they are passed over" in caplog.text


def test_a_class_without_images_is_refused_unless_they_were_erased(tmp_path: Path) -> None:
    write_set(tmp_path, metadata=hub_metadata(["cat", "dog", "bird"]))
    remove(tmp_path, [f"{TRAIN}#{row}" for row in (0, 2, 4)], reading())
    assert refusal(tmp_path).endswith("class 2 (bird) has no training images")


def test_a_damaged_note_of_what_was_erased_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, metadata={"expunge": "{"})
    assert refusal(tmp_path).endswith(f"{TRAIN}: metadata expunge is damaged; restore the file")


def test_a_path_that_does_not_fit_on_a_line_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, paths=["a", "b\nc", "d", "e", "f", "g"])
    assert "sample id 'train/b\\nc' is empty or holds control characters" in refusal(tmp_path)
