"""Parquet files as data set hubs and people lay them out."""

from __future__ import annotations

import json
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
from tasks.samples.roles import assign_roles
from tests.datasets.building import colour, encoded, reading

PNGS = [encoded(colour(seed)) for seed in range(24)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(
    file: Path, first: int, values: list[Any], /, *, features: dict[str, Any] | None = None, **columns: Any
) -> None:
    """A file with the images from ``first``; ``columns`` beside or instead of ``image`` and ``label``."""
    rows = [{"bytes": image, "path": None} for image in PNGS[first : first + len(values)]]
    given = {"image": pa.array(rows, STRUCT), "label": values} | columns
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: column for name, column in given.items() if column is not None})
    pq.write_table(table.replace_schema_metadata(metadata), file)


def read(path: Path, **settings: Any) -> ImageSet:
    return check(parquet(path, reading(**settings)), str(path))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "test.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        (
            "data/train-00000-of-00001-6f3f5a6f5d8c1b2e.parquet",
            "data/test-00000-of-00001-0a1b2c3d4e5f6071.parquet",
        ),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train_part1.parquet", "test.parquet"),
    ],
)
def test_files_lie_where_hubs_put_them(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path / train, 0, [0, 1] * 4)
    write(tmp_path / test, 8, [0, 1])
    of = read(tmp_path)
    assert len(of.labels) == 10
    assert of.sources[0] == f"{train}#0"
    assert of.row_counts == ((train, 8),)
    assert remove(tmp_path, [f"{train}#2"], reading()) == [tmp_path / train]
    assert read(tmp_path).sources[:3] == (f"{train}#0", f"{train}#1", f"{train}#3")


@pytest.mark.parametrize(
    "name", ["validation-00000-of-00001.parquet", "valid/0000.parquet", "val.parquet", "dev.parquet"]
)
def test_a_validation_part_is_val(tmp_path: Path, name: str) -> None:
    folder = name.endswith("0000.parquet")
    write(tmp_path / ("train/0000.parquet" if folder else "train.parquet"), 0, [0, 1] * 4)
    write(tmp_path / name, 8, [0, 1, 1])
    of = read(tmp_path)
    parts, _ = assign_roles(of, reading())
    assert of.is_val is not None
    assert np.array_equal(parts == "val", of.is_val)
    assert [name.partition("/")[0] for name in of.sample_ids].count("val") == 3
    assert of.has_test is False
    assert np.count_nonzero(parts == "test") == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train-00000-of-00001-aaaa1111.parquet", "train-00000-of-00001-bbbb2222.parquet"),
        ("train-00000-of-00001.parquet", "train-00000-of-00001-bbbb2222.parquet"),
        ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"),
        ("train-00000-of-00001.parquet", "train-00000-of-00001 (1).parquet"),
        ("train-00000-of-00001.parquet", "train.parquet"),
        ("train/0000.parquet", "train.parquet"),
    ],
)
def test_two_generations_of_files_are_refused_and_both_named(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path / one, 0, [0, 1])
    write(tmp_path / other, 0, [0, 1])
    with pytest.raises(ExpungeError, match="two generations of one part") as caught:
        read(tmp_path)
    assert one in str(caught.value)
    assert other in str(caught.value)


def test_files_of_one_part_with_a_digest_each_belong_together(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002-aaaa1111.parquet", 0, [0, 1] * 2)
    write(tmp_path / "train-00001-of-00002-bbbb2222.parquet", 4, [0, 1] * 2)
    assert len(read(tmp_path).labels) == 8


def test_several_sets_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    for name in ("large", "small"):
        write(tmp_path / name / "train/0000.parquet", 0, [0, 1])
    with pytest.raises(ExpungeError, match=r"several sets, large, small; set split\.path to one"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["img", "image", "picture", "photo"])
@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary(), pa.binary_view()])
def test_the_image_column_is_found_by_name_or_type(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    rows = [{"bytes": image, "path": None} for image in PNGS[:6]] if kind == STRUCT else PNGS[:6]
    columns = {"image": None, name: pa.array(rows, kind)}
    write(tmp_path / "train.parquet", 0, [0, 1] * 3, note=["n"] * 6, **columns)
    of = read(tmp_path)
    assert np.array_equal(of.images[3], colour(3).transpose(2, 0, 1))
    remove(tmp_path, ["train.parquet#3"], reading())
    assert read(tmp_path).sources == tuple(f"train.parquet#{row}" for row in (0, 1, 2, 4, 5))


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "coarse_label"])
def test_the_label_column_has_one_of_four_names(tmp_path: Path, name: str) -> None:
    columns: dict[str, Any] = {"label": None, name: [0, 1, 0, 1, 0, 1]}
    write(tmp_path / "train.parquet", 0, [0] * 6, **columns)
    assert read(tmp_path).labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_where_there_is_a_choice_of_labels_a_setting_makes_it(tmp_path: Path) -> None:
    features = {
        "fine_label": {"_type": "ClassLabel", "names": ["apple", "pear", "rose"]},
        "coarse_label": {"_type": "ClassLabel", "names": ["fruit", "flower"]},
    }
    columns = {"label": None, "fine_label": [0, 1, 2] * 2, "coarse_label": [0, 0, 1] * 2}
    write(tmp_path / "train.parquet", 0, [0] * 6, features=features, **columns)
    with pytest.raises(ExpungeError, match=r"fine_label and coarse_label; set split\.label_column"):
        read(tmp_path)
    assert read(tmp_path, label_column="fine_label").classes == ("apple", "pear", "rose")
    of = read(tmp_path, label_column="coarse_label")
    assert (of.classes, of.labels.tolist()) == (("fruit", "flower"), [0, 0, 1] * 2)
    with pytest.raises(ExpungeError, match=r"no column colour, which split\.label_column names"):
        read(tmp_path, label_column="colour")


def test_a_column_that_the_schema_calls_labels_is_found(tmp_path: Path) -> None:
    features = {"kind": {"_type": "ClassLabel", "names": ["a", "b"]}}
    write(tmp_path / "train.parquet", 0, [0] * 4, features=features, label=None, kind=[0, 1, 1, 0])
    assert read(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_labels_that_are_names_become_classes_and_keep_their_numbers(
    tmp_path: Path, kind: pa.DataType
) -> None:
    labels = pa.array(["dog", "ant", "cat"] * 2, pa.string()).cast(kind)
    write(tmp_path / "train.parquet", 0, [0] * 6, label=labels)
    write(tmp_path / "test.parquet", 6, ["cat", "dog"])
    before = read(tmp_path)
    assert before.classes == ("ant", "cat", "dog")
    assert before.labels.tolist() == [2, 0, 1, 2, 0, 1, 1, 2]
    remove(tmp_path, ["train.parquet#1", "train.parquet#4"], reading())
    after = read(tmp_path)
    assert (after.classes, after.labels.tolist()) == (before.classes, [2, 1, 2, 1, 1, 2])


def test_names_that_the_schema_does_not_have_are_refused(tmp_path: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    write(tmp_path / "train.parquet", 0, ["ant", "bee", "wasp"], features=features)
    with pytest.raises(ExpungeError, match="label 'wasp' is no class; the schema has ant, bee"):
        read(tmp_path)


def test_numbers_in_one_file_and_names_in_another_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 0, ["ant", "bee"])
    write(tmp_path / "test.parquet", 2, [0, 1])
    with pytest.raises(ExpungeError, match="some labels are numbers and some are names"):
        read(tmp_path)


@pytest.mark.parametrize("label", [-1, None])
def test_a_test_part_without_labels_is_passed_over(
    tmp_path: Path, label: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.parquet", 0, [0, 1] * 6)
    write(tmp_path / "test.parquet", 12, [0] * 3, label=pa.array([label] * 3, pa.int64()))
    of = read(tmp_path)
    assert (len(of.labels), of.has_test) == (12, False)
    assert "the test part has no labels and is passed over" in caplog.text


def test_a_class_that_only_the_test_part_has_is_read_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.parquet", 0, [0, 1] * 5)
    write(tmp_path / "test.parquet", 10, [0, 1, 2])
    of = read(tmp_path)
    assert of.classes == ("0", "1", "2")
    assign_roles(of, reading())
    assert "no training images of class 2 (2)" in caplog.text


def test_an_image_that_lies_elsewhere_is_refused_with_the_source_for_it(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": None, "path": "a.png"}, {"bytes": PNGS[1], "path": "b.png"}], STRUCT)
    write(tmp_path / "train.parquet", 0, [0, 1], image=rows)
    with pytest.raises(ExpungeError, match=r"train.parquet#0 .* it lies elsewhere; use source table"):
        read(tmp_path)


def test_a_column_says_whose_the_images_are(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 0, [0, 1, 0, 1], subject=["a;b", None, "a", ""])
    assert read(tmp_path).subjects == (("a", "b"), (), ("a",), ())
    write(tmp_path / "train.parquet", 0, [0, 1, 0], patients=[["x"], [], ["x", "y"]], number=[7, 8, 7])
    assert read(tmp_path).subjects is None
    assert read(tmp_path, subject="patients").subjects == (("x",), (), ("x", "y"))
    assert read(tmp_path, subject="number").subjects == (("7",), ("8",), ("7",))


def test_files_of_no_known_part_are_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.parquet", 0, [0, 1])
    write(tmp_path / "unsupervised.parquet", 2, [0, 1])
    assert len(read(tmp_path).labels) == 2
    assert "passed over, as of no known part: unsupervised.parquet" in caplog.text
